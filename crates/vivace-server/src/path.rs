//! Paths with doubled slashes or dots lead to their clean form.

use http::Uri;

/// The clean path with its query, where the path is not clean: one slash between parts, no `.` and `..`.
/// A slash at the end stays. The result is always a path on this server.
pub(crate) fn redirect(uri: &Uri) -> Option<String> {
    let path = uri.path();
    if !path.starts_with('/') {
        return None; // "*" and authorities are none of our routes
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if path.ends_with('/') && clean.len() > 1 {
        clean.push('/');
    }
    if clean == path {
        return None;
    }
    if let Some(query) = uri.query() {
        clean.push('?');
        clean.push_str(query);
    }
    Some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unclean_paths_lead_to_their_clean_form() {
        let clean = |text: &str| redirect(&text.parse().unwrap());
        assert_eq!(clean("//api/search?q=%7B%7D").as_deref(), Some("/api/search?q=%7B%7D"));
        assert_eq!(clean("/a/./b/../c").as_deref(), Some("/a/c"));
        assert_eq!(clean("/../..").as_deref(), Some("/"));
        assert_eq!(clean("/a//").as_deref(), Some("/a/"));
        assert_eq!(clean("/a/"), None);
        assert_eq!(clean("/"), None);
        assert_eq!(clean("/api/search/tag/http%2F%2Furl/values"), None);
    }
}
