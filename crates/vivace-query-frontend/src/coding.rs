//! Which content coding a client takes. Source: RFC 9110, 12.5.3 and 12.4.2.

use http::{HeaderMap, header};

/// How an answer is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As it is.
    Plain,
    /// With gzip, where that is worth it.
    Gzip,
    /// With gzip, also where it is not worth it: the client refuses what is not coded.
    GzipOnly,
}

impl Coding {
    /// What `Accept-Encoding` asks for. A client that takes neither gets the answer as it is, so that it can read why.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let (mut gzip, mut identity, mut any) = (None, None, None);
        let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        for member in lists.flat_map(|list| list.split(',')) {
            let mut parts = member.split(';').map(str::trim);
            let weight = match weight(parts.next().unwrap_or_default(), parts) {
                Some((name, weight)) => match name.to_ascii_lowercase().as_str() {
                    "gzip" | "x-gzip" => (&mut gzip, weight),
                    "identity" => (&mut identity, weight),
                    "*" => (&mut any, weight),
                    _ => continue,
                },
                None => continue,
            };
            // Named twice, the kinder word counts.
            *weight.0 = Some(weight.0.unwrap_or(0).max(weight.1));
        }
        let gzip = gzip.or(any).unwrap_or(0);
        // What is not coded is acceptable unless it is refused, and then no better than what was asked for.
        let identity = identity.or(any.filter(|weight| *weight == 0));
        match (gzip, identity) {
            (0, _) => Self::Plain,
            (_, Some(0)) => Self::GzipOnly,
            (gzip, Some(identity)) if identity > gzip => Self::Plain,
            _ => Self::Gzip,
        }
    }
}

/// A coding and its weight in thousandths; none where the weight cannot be read.
fn weight<'a>(name: &'a str, parameters: impl Iterator<Item = &'a str>) -> Option<(&'a str, u16)> {
    let mut weight = 1000;
    for parameter in parameters {
        let (key, value) = parameter.split_once('=')?;
        if key.trim().eq_ignore_ascii_case("q") {
            let value: f32 = value.trim().parse().ok().filter(|value| (0.0..=1.0).contains(value))?;
            weight = (value * 1000.0).round() as u16;
        }
    }
    Some((name, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_it_takes() {
        use Coding::{Gzip, GzipOnly, Plain};
        let cases: [(&[&str], Coding); 22] = [
            (&[], Plain),
            (&[""], Plain),
            (&["gzip"], Gzip),
            (&["GZIP"], Gzip),
            (&["x-gzip"], Gzip),
            (&["*"], Gzip),
            (&["br, gzip;q=0.5"], Gzip),
            (&["br", "gzip"], Gzip),
            (&["deflate, br"], Plain),
            (&["gzip;q=0"], Plain),
            (&["gzip; q=0.000"], Plain),
            (&["gzip;Q=0, *"], Plain),
            (&["*;q=0"], Plain),
            (&["gzip, *;q=0"], GzipOnly),
            (&["gzip, identity;q=0"], GzipOnly),
            (&["identity;q=0, *;q=0.5"], GzipOnly),
            (&["identity;q=0"], Plain),
            (&["identity"], Plain),
            (&["identity;q=1, gzip;q=0.5"], Plain),
            (&["identity;q=0.5, gzip;q=1.0"], Gzip),
            (&["gzip;q=often"], Plain),
            (&["notgzip"], Plain),
        ];
        for (values, want) in cases {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| {
                headers.append(header::ACCEPT_ENCODING, value.parse().expect("a header"));
            });
            assert_eq!(Coding::of(&headers), want, "{values:?}");
        }
    }
}
