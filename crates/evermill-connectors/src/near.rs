//! The name somebody probably meant.

/// The known name that is nearest to what was typed, if one is near.
pub(crate) fn nearest<'n>(typed: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let near = known.map(|name| (strsim::damerau_levenshtein(typed, name), name));
    let (distance, name) = near.min()?;
    (distance <= 1 + typed.chars().count() / 4).then_some(name)
}
