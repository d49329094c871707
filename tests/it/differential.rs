//! The verdicts on which rolegate and the servers' own parsers agreed, held. `tests/differential/run` compares afresh.

#[path = "../differential/verdict.rs"]
pub mod verdict;

use std::collections::BTreeMap;

use serde_json::Value;

#[test]
fn every_verdict_of_the_frozen_sample_is_still_the_same() {
    let judge = verdict::Judge::new().unwrap();
    let sample = include_str!("../differential/sample.jsonl");
    let mut differ = Vec::new();
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    for line in sample.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let found = judge.verdict(&line["request"]).unwrap();
        if found != line["rolegate"] {
            let shown: String = line["request"].to_string().chars().take(200).collect();
            differ.push(format!("{shown}\n  was {}\n  is  {found}", line["rolegate"]));
        }
        *verdicts.entry(line["rolegate"]["verdict"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(verdicts.values().sum::<usize>() >= 2000, "{verdicts:?}");
    assert!(["forwarded", "open", "refused"].iter().all(|verdict| verdicts[*verdict] >= 200), "{verdicts:?}");
}
