//! What is wrong with a file that a person wrote, and where.

use std::fmt;

use super::escape::escape;

/// A place in a file; lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as the operator would open it, relative to where the command ran.
    pub file: String,
    /// The line, from 1; 0 when the fault belongs to the whole file.
    pub line: usize,
    /// The column in characters, from 1; 0 when the fault belongs to the whole line.
    pub column: usize,
}

impl Place {
    /// The whole of `file`.
    #[must_use]
    pub fn file(file: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, column: 0 }
    }

    /// The place of byte `offset` of `text`.
    #[must_use]
    pub fn at(file: impl Into<String>, text: &str, offset: usize) -> Self {
        let mut end = offset.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = text.get(..end).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { file: file.into(), line, column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}", escape(&self.file)),
            (line, 0) => write!(f, "{}:{line}", escape(&self.file)),
            (line, column) => write!(f, "{}:{line}:{column}", escape(&self.file)),
        }
    }
}

/// One fault, told so that its author can mend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where it is.
    pub place: Place,
    /// What is wrong: lower case, values in backticks.
    pub message: String,
    /// What to do about it, when that is known.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault without a hint.
    #[must_use]
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), hint: None }
    }

    /// The same fault with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both may quote a file that a stranger wrote.
        write!(f, "{}: {}", self.place, escape(&self.message))?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {}", escape(hint)),
            None => Ok(()),
        }
    }
}

/// Every fault found in one reading, not only the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// `value` when nothing was found, else the faults.
    ///
    /// # Errors
    /// The faults themselves, sorted by place.
    pub fn or<T>(mut self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            self.0.sort();
            self.0.dedup();
            Err(self)
        }
    }

    /// Notes one more.
    pub fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// Takes over those of another reading.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let text = "a = 1\nü = 2\n";
        assert_eq!(Place::at("f", text, 0).to_string(), "f:1:1");
        assert_eq!(Place::at("f", text, 9).to_string(), "f:2:3");
        assert_eq!(Place::at("f", text, 7).to_string(), "f:2:1", "inside a character is at the character");
        assert_eq!(Place::at("f", text, 999).to_string(), "f:3:1");
        assert_eq!(Place::file("f").to_string(), "f");
    }

    #[test]
    fn faults_are_told_in_the_order_of_their_places() {
        let mut faults = Faults::default();
        faults.push(Fault::new(Place::at("b", "", 0), "second").hint("mend it"));
        faults.push(Fault::new(Place::at("a", "", 0), "first"));
        let told = faults.or(()).unwrap_err().to_string();
        assert_eq!(told, "a:1:1: first\nb:1:1: second\n  hint: mend it");
    }
}
