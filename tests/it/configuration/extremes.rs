//! Every key that the configuration has, with values from the edges of every type: what `check` passes starts, serves and ends, and
//! what it refuses is refused at the key.

use std::fs;
use std::time::Duration;

use rolegate::config::{Config, EXAMPLE, Flags, unfit_upstreams};
use rolegate::model::Faults;
use rolegate::proxy::Server;
use rolegate::rules::{Ruleset, Sources};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use toml::Value;

use super::Folder;

/// The example with every key that it only shows, so that a key that comes to it comes here, too.
fn whole() -> toml::Table {
    let is_key = |line: &str| line.strip_prefix("# ").filter(|rest| rest.split(' ').nth(1) == Some("=")).map(str::to_owned);
    let lines: Vec<String> = EXAMPLE.lines().map(|line| is_key(line).unwrap_or_else(|| line.to_owned())).collect();
    let mut table: toml::Table = lines.join("\n").parse().unwrap();
    for (path, value) in [
        ("listen.address", "127.0.0.1:0"),
        ("admin.address", "127.0.0.1:0"),
        ("upstream.0.provider", "small"),
        ("upstream.0.url", "http://127.0.0.1:9"),
    ] {
        *at(&mut table, path) = Value::String(value.to_owned());
    }
    table
}

/// The value that `path` leads to.
fn at<'t>(table: &'t mut toml::Table, path: &str) -> &'t mut Value {
    let mut words = path.split('.');
    let first = table.get_mut(words.next().unwrap()).unwrap();
    words.fold(first, |value, word| match value {
        Value::Array(values) => &mut values[word.parse::<usize>().unwrap()],
        value => value.get_mut(word).unwrap(),
    })
}

/// The paths of all values that hold no others by name.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    let join = |word: &str| if path.is_empty() { word.to_owned() } else { format!("{path}.{word}") };
    match value {
        Value::Table(table) => table.iter().for_each(|(key, value)| leaves(value, &join(key), found)),
        Value::Array(values) if values.iter().any(Value::is_table) => {
            values.iter().enumerate().for_each(|(index, value)| leaves(value, &join(&index.to_string()), found));
        }
        _ => found.push(path.to_owned()),
    }
}

/// Values from the edges of every type.
fn extremes() -> Vec<Value> {
    let long = "x".repeat(300);
    let texts = [
        "",
        " ",
        "-",
        ".",
        "..",
        "/",
        "/a/../b",
        "a/b",
        "\0",
        "a\0b",
        "é",
        "\u{202e}",
        "😀",
        "*",
        "*.example.org",
        "localhost",
        "[::1]",
        "0",
        "1",
        "-1",
        "0s",
        "1ns",
        "1ms",
        "1day",
        "18446744073709551615s",
        "9999999999999999999999",
        "1B",
        "1KiB",
        "16EiB",
        "127.0.0.1:0",
        "127.0.0.1",
        "0.0.0.0/0",
        "http://h",
        "http://h:0",
        "http://h:99999",
        "http://u:p@h",
        "http://a/b",
        "/dev/full",
        "/dev/zero",
        "/dev/null",
        "/proc/x",
        "policies",
        "rolegate.toml",
        "rolegate.toml/x",
        "small",
        "observe",
        &long,
    ];
    let numbers = [0, 1, -1, 7, 100_000, i64::from(i32::MAX), i64::MAX, i64::MIN];
    let mut values: Vec<Value> = texts.iter().map(|text| Value::String((*text).to_owned())).collect();
    let listed = ["", "\0", "é", "*", "127.0.0.1:0", "127.0.0.1", "0.0.0.0/0", "x"];
    values.extend(listed.map(|text| Value::Array(vec![Value::String(text.to_owned())])));
    values.extend(numbers.map(Value::Integer));
    values.extend([1.5, f64::NAN, f64::INFINITY].map(Value::Float));
    values.extend([Value::Boolean(true), Value::Boolean(false), Value::Array(Vec::new()), Value::Table(toml::Table::new())]);
    values
}

/// A folder in which every file is that the example names.
fn furnished() -> Folder {
    let folder = Folder::new("");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    for (name, text) in [
        ("cert.pem", made.cert.pem()),
        ("ca.pem", made.cert.pem()),
        ("key.pem", made.signing_key.serialize_pem()),
        ("admin.token", "0123456789abcdef".to_owned()),
        ("service.toml", "x-auth-token = \"t\"\n".to_owned()),
    ] {
        fs::write(folder.path(name), text).unwrap();
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn what_check_passes_starts_serves_and_ends_and_what_it_refuses_is_refused_at_the_key() {
    let folder = furnished();
    let file = folder.path("rolegate.toml");
    let mut paths = Vec::new();
    leaves(&Value::Table(whole()), "", &mut paths);
    assert!(paths.len() > 45, "the example shows {} keys only", paths.len());
    let plain = {
        fs::write(&file, whole().to_string()).unwrap();
        format!("{:?}", Config::load(Some(&file), &Flags::default()).unwrap_or_else(|faults| panic!("{faults}")))
    };
    let (mut passed, mut refusals, mut wrong) = (0, 0, Vec::new());
    for path in &paths {
        for value in extremes() {
            if path == "policies.directory" && matches!(value.as_str(), Some(".." | "/")) {
                // What lies there is not this story's.
                continue;
            }
            let mut table = whole();
            *at(&mut table, path) = value.clone();
            if !path.starts_with("listen.tls") {
                // Asked without TLS.
                table.get_mut("listen").unwrap().as_table_mut().unwrap().remove("tls");
            }
            let what = format!("{path} = {value}");
            let text = table.to_string();
            fs::write(&file, &text).unwrap();
            let loaded = Config::load(Some(&file), &Flags::default());
            let faults = match &loaded {
                Ok(config) => refused(config, path),
                Err(faults) => faults.clone(),
            };
            if faults.0.is_empty() {
                let mut config = loaded.unwrap();
                if format!("{config:?}") != plain {
                    passed += 1;
                    if path != "audit.path" {
                        // The gate before may not have let go of its log yet.
                        config.audit.sink = rolegate::audit::Sink::File(folder.path(&format!("audit/{passed}.jsonl")));
                    }
                    wrong.extend(serves(config).await.err().map(|why| format!("{what} is passed, and: {why}")));
                }
                continue;
            }
            refusals += 1;
            if matches!(loaded.map(Server::bind), Ok(Ok(_))) {
                wrong.push(format!("{what} starts, and is refused:\n{faults}"));
            }
            let key = path.split('.').rfind(|word| word.parse::<usize>().is_err()).unwrap();
            for fault in &faults.0 {
                let line = text.lines().nth(fault.place.line.saturating_sub(1)).unwrap_or_default();
                let placed = fault.place.file == file.display().to_string() && fault.place.line > 0 && fault.place.column > 0;
                let told = fault.to_string();
                if !placed || !(line.contains(key) || told.contains(&format!("`{key}`"))) {
                    wrong.push(format!("{what} is refused elsewhere, at `{line}`: {fault}"));
                }
            }
            let named = |told: String| told.contains(&format!("{key}`")) || told.contains(&format!("`{key}"));
            if !faults.0.iter().any(|fault| named(fault.to_string())) {
                wrong.push(format!("{what}: the key is not named:\n{faults}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} surprises:\n{}", wrong.len(), wrong.join("\n"));
    assert!(passed > 100 && refusals > 1000, "{passed} passed and {refusals} were refused");
}

/// What `check` refuses of a configuration that was read, by the same steps; the rules only where `path` has a part in them.
fn refused(config: &Config, path: &str) -> Faults {
    let (mut faults, _) = rolegate::proxy::look_at_files(config, std::time::SystemTime::now());
    faults.0.extend(config.unwritable_log());
    if !["policies.directory", "upstream.0.provider", "networks.office"].contains(&path) {
        return faults;
    }
    let place = config.places.of_key("policies.directory");
    let folder = config.policies.directory.as_deref().unwrap();
    match Sources::named(folder, &place).and_then(|sources| Ruleset::load(&sources, &config.network_names())) {
        Ok(ruleset) => {
            faults.extend(unfit_upstreams(config.upstreams.iter(), &config.places, &ruleset));
        }
        Err(found) => faults.extend(found),
    }
    faults
}

/// Starts a gate, asks it and ends it.
async fn serves(config: Config) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    let threads = config.listen.threads;
    let patient = config.limits.header_deadline >= Duration::from_millis(500) && config.listen.tls.is_none();
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).build().map_err(told)?.shutdown_background();
    let running = Server::bind(config).and_then(Server::serve).map_err(|error| error.to_string())?;
    if patient {
        let asked = async {
            let mut stream = tokio::net::TcpStream::connect(running.addresses()[0]).await?;
            stream.write_all(b"GET /page HTTP/1.1\r\nHost: chat.example.org\r\nConnection: close\r\n\r\n").await?;
            let mut answer = [0; 9];
            stream.read_exact(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = tokio::time::timeout(crate::support::PATIENCE, asked).await.map_err(|_| "no answer".to_owned())?;
        if answer.map_err(told)? != *b"HTTP/1.1 " {
            return Err("an answer that is none".to_owned());
        }
    }
    let ended = tokio::time::timeout(crate::support::PATIENCE, running.drain()).await;
    ended.map(drop).map_err(|_| "it does not end".to_owned())
}
