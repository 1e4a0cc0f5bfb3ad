//! What is shown on a terminal comes from spans, which strangers send: it must not move the cursor or set the title.

use std::io::{IsTerminal as _, Result, Stdout, Write, stdout};

/// Standard output. On a terminal, control characters but line ends and tabs are shown as blanks; elsewhere bytes stay what they are.
#[derive(Debug)]
pub struct Output<W = Stdout> {
    to: W,
    is_terminal: bool,
    /// The first byte of a control character of two bytes was held back.
    begun: bool,
}

/// Begins the control characters U+0080 to U+009F in UTF-8.
const FIRST_OF_TWO: u8 = 0xc2;

impl Output {
    /// Of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let to = stdout();
        Self { is_terminal: to.is_terminal(), to, begun: false }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if !self.is_terminal {
            return self.to.write(bytes);
        }
        let mut clean = Vec::with_capacity(bytes.len() + 1);
        for byte in bytes {
            if std::mem::take(&mut self.begun) {
                match byte {
                    0x80..=0x9f => {
                        clean.push(b' ');
                        continue;
                    }
                    _ => clean.push(FIRST_OF_TWO),
                }
            }
            match byte {
                b'\n' | b'\t' => clean.push(*byte),
                0..=0x1f | 0x7f => clean.push(b' '),
                &FIRST_OF_TWO => self.begun = true,
                _ => clean.push(*byte),
            }
        }
        self.to.write_all(&clean)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(is_terminal: bool, pieces: &[&[u8]]) -> Vec<u8> {
        let mut output = Output { to: Vec::new(), is_terminal, begun: false };
        pieces.iter().for_each(|piece| output.write_all(piece).expect("written"));
        output.to
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let text = "a\u{1b}[2J\u{7}b\tä\u{9b}31m°\n\u{7f}".as_bytes();
        assert_eq!(String::from_utf8(shown(true, &[text])).expect("text"), "a [2J b\tä 31m°\n ");
        for at in 0..text.len() {
            assert_eq!(shown(true, &[&text[..at], &text[at..]]), shown(true, &[text]), "cut at {at}");
        }
        assert_eq!(shown(false, &[text]), text);
    }
}
