//! Reads requests from standard input, one JSON object a line, and writes each back with what rolegate makes of it.
#![expect(unreachable_pub, reason = "nothing is outside of an example")]

mod verdict;

use std::io::{self, BufRead, BufWriter, Write};

use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let judge = verdict::Judge::new()?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line?)?;
        let told = judge.verdict(&asked)?;
        serde_json::to_writer(&mut out, &json!({ "request": asked, "rolegate": told }))?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
