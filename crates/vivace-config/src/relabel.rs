//! Prometheus' relabelling: rules that change the labels of a series, or leave it out.

use regex::Regex;

use crate::reader::Reader;
use crate::section::{choice, section};
use crate::value::{default, text};

section! {
    /// `write_relabel_configs[]`: one rule, in Prometheus' own form.
    pub struct RelabelConfig {
        /// Labels whose values are looked at.
        used source_labels: Vec<String> = vec![];
        /// What is put between their values.
        used separator: String = text(";");
        /// Pattern that all of the values, or of a label's name, must match.
        used regex: String = text("(.*)");
        /// Number of parts that `hashmod` makes.
        used modulus: u64 = 0;
        /// Label that is set, or compared.
        used target_label: String = String::new();
        /// What it is set to; `$1` is the pattern's first group.
        used replacement: String = text("$1");
        /// What is done.
        used action: RelabelAction = default();
    }
}

choice! {
    /// What a rule does.
    pub enum RelabelAction {
        /// Sets a label if the pattern matches.
        Replace = "replace" | "Replace";
        /// Leaves out series that the pattern does not match.
        Keep = "keep" | "Keep";
        /// Leaves out series that the pattern matches.
        Drop = "drop" | "Drop";
        /// Leaves out series whose target label has another value.
        KeepEqual = "keepequal" | "KeepEqual";
        /// Leaves out series whose target label has the same value.
        DropEqual = "dropequal" | "DropEqual";
        /// Sets a label to the hash of the values, modulo a number.
        HashMod = "hashmod" | "HashMod";
        /// Copies labels whose name matches to another name.
        LabelMap = "labelmap" | "LabelMap";
        /// Removes labels whose name matches.
        LabelDrop = "labeldrop" | "LabelDrop";
        /// Removes labels whose name does not match.
        LabelKeep = "labelkeep" | "LabelKeep";
        /// Sets a label to the values in small letters.
        Lowercase = "lowercase" | "Lowercase";
        /// Sets a label to the values in capital letters.
        Uppercase = "uppercase" | "Uppercase";
    }
}

impl RelabelConfig {
    /// The pattern, which must match a whole text.
    ///
    /// # Errors
    /// It is none.
    pub fn pattern(&self) -> Result<Regex, regex::Error> {
        Regex::new(&format!("^(?s:{})$", self.regex))
    }

    pub(crate) fn check(&self, path: &str, reader: &mut Reader) {
        use RelabelAction::{DropEqual, HashMod, KeepEqual, Lowercase, Replace, Uppercase};
        // By itself, too: a bracket that is missing would be found in what stands around it.
        if let Err(error) = Regex::new(&self.regex).and_then(|_| self.pattern()) {
            let reason = error.to_string().lines().last().unwrap_or_default().to_owned();
            reader.problem_at(&format!("{path}.regex"), format!("expected a pattern; got {:?}: {reason}", self.regex));
        }
        let needs_target = matches!(self.action, Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual);
        if needs_target && self.target_label.is_empty() {
            reader.problem_at(&format!("{path}.target_label"), format!("is not set; the action {} needs it", self.action));
        }
        if self.action == HashMod && self.modulus == 0 {
            reader.problem_at(&format!("{path}.modulus"), "is not set; the action hashmod needs it".to_owned());
        }
    }
}
