//! `rolegate audit verify`: what it says of files in any order, of files that are not there, and of beginnings that are gone.

use std::fs;

use serde_json::{Value, json};

use super::audit;
use crate::support::gate::login;
use crate::support::{Gate, GateBuilder};

/// A gate that has ended, and its log in three files: `audit.jsonl` and two older ones.
async fn three_files() -> (Gate, [String; 3]) {
    let mut gate = GateBuilder::rocketchat().await.start();
    let mut names = Vec::new();
    for _ in 0..2 {
        assert_eq!(gate.get("/api/v1/users.info?username=bob", &login("bob")).await.status, 200);
        let rotated = gate.shared().audit.rotate().unwrap().unwrap();
        names.push(rotated.file_name().unwrap().to_str().unwrap().to_owned());
    }
    assert!(gate.stop().await);
    names.push("audit.jsonl".to_owned());
    (gate, names.try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_and_the_words_fit_what_was_given() {
    let (gate, [first, second, third]) = three_files().await;
    let folder = gate.folder.path();
    fs::create_dir(folder.join("folder")).unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    let text = fs::read_to_string(folder.join(&second)).unwrap();
    fs::write(folder.join("changed"), text.replacen("\"kind\"", "\"kjnd\"", 1)).unwrap();
    for (files, code, says) in [
        (vec![&*first, &*second, &*third], 0, "unbroken from the beginning"),
        (vec![&*third, &*first, &*second], 0, "unbroken from the beginning"),
        (vec![&*third, &*second, &*first, "empty"], 0, "unbroken from the beginning"),
        (vec![&*second, &*third], 0, "(what came before was not given)"),
        (vec!["empty"], 0, "no records"),
        (vec![&*first, &*third], 7, &*format!("{third}:1: `seq` is")),
        (vec![&*third, "changed", &*first], 7, "changed:"),
        (vec!["nope.jsonl"], 2, "nope.jsonl: there is no such file"),
        (vec![&*first, "typo", &*third], 2, "typo: there is no such file"),
        (vec!["folder"], 1, "folder: cannot be read"),
        (vec![], 2, "required arguments"),
    ] {
        let (found, out, err) = audit(folder, &[&["verify"], &files[..]].concat());
        assert_eq!(found, code, "{files:?}: {out}{err}");
        assert!(format!("{out}{err}").contains(says), "{files:?}: {out}{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_another_order_are_sorted_and_that_is_said() {
    let (gate, [first, second, third]) = three_files().await;
    let folder = gate.folder.path();
    let (code, _, err) = audit(folder, &["verify", &first, &second, &third]);
    assert_eq!((code, err.as_str()), (0, ""));
    let (_, _, err) = audit(folder, &["verify", &third, &first, &second]);
    assert_eq!(err.trim_end(), format!("sorted by their first record: {first} {second} {third}"));
    let (code, out, err) = audit(folder, &["verify", "--format", "json", &third, &first, &second]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, err.as_str(), &told["sorted"], &told["valid"], &told["before"]),
        (0, "", &json!(true), &json!(true), &json!("nothing"))
    );
}
