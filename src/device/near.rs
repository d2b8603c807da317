//! Turns a name that is not there into a hint at those that are.

/// A hint at the nearest of some names, or at all where none is near.
pub(crate) fn among(wanted: &str, names: &[String]) -> String {
    let near = names.iter().map(|name| (strsim::damerau_levenshtein(name, wanted), name)).min();
    match near {
        Some((distance, near)) if distance <= (wanted.len() / 3).max(1) => format!("; did you mean `{near}`?"),
        None => String::new(),
        Some(_) => {
            let shown: Vec<String> = names.iter().take(8).map(|f| format!("`{f}`")).collect();
            format!("; it has {}{}", shown.join(", "), if names.len() > 8 { ", ..." } else { "" })
        }
    }
}
