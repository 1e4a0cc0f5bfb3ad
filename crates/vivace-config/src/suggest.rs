//! What an unknown word was meant to be, or where else its key exists. Too slow for a file that is unknown in every line: the
//! reader stops asking once it has enough problems to show.

use crate::Config;
use crate::value::Value;

/// No word is so long, nor what was meant to be one.
const GOT_BYTES_MAX: usize = 100;

/// The known word that `got` was most likely meant to be.
pub(crate) fn nearest<'w>(got: &str, known: &[&'w str]) -> Option<&'w str> {
    if got.len() > GOT_BYTES_MAX {
        return None;
    }
    let allowed = (got.chars().count() / 3).clamp(1, 3);
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let got = plain(got);
    let words = || known.iter().copied().filter(|word| !word.is_empty());
    words()
        .map(|word| (distance(&got, &plain(word)), word))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
        .or_else(|| words().filter(|word| got.len() >= 4 && plain(word).contains(&got)).min_by_key(|word| word.len()))
}

/// The paths of the whole configuration that end in `key`; empty if there are none, or so many that they do not help.
pub(crate) fn elsewhere(key: &str) -> Vec<String> {
    let mut found = vec![];
    collect(&Config::default(), "", key, &mut found);
    if found.len() > 3 { vec![] } else { found }
}

fn collect(value: &dyn Value, path: &str, key: &str, found: &mut Vec<String>) {
    for field in value.fields() {
        let path = if path.is_empty() { field.key.to_owned() } else { format!("{path}.{}", field.key) };
        if field.key == key {
            found.push(path.clone());
        }
        collect(field.value, &path, key, found);
    }
}

/// Characters to insert, delete, replace or swap with their neighbour to get from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}
