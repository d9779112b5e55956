//! The little XML that answers of older services are.

/// The text of the first element of this name, however deep; entities are put back.
pub(crate) fn text(document: &str, name: &str) -> Option<String> {
    let (inside, _) = element(document, name)?;
    Some(unescaped(inside))
}

/// The inside of each element of this name, in order, none within another.
pub(crate) fn each<'a>(document: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let mut rest = document;
    std::iter::from_fn(move || {
        let (inside, behind) = element(rest, name)?;
        rest = behind;
        Some(inside)
    })
}

/// The inside of the first element of this name, and what comes behind it.
fn element<'a>(document: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let mut from = 0;
    loop {
        let at = from + document[from..].find('<')? + 1;
        let rest = &document[at..];
        let behind = rest.strip_prefix(name);
        let behind = behind.filter(|behind| behind.starts_with([' ', '>', '/']));
        let Some(behind) = behind else {
            from = at;
            continue;
        };
        let (attributes, inside) = behind.split_once('>')?;
        if attributes.ends_with('/') {
            return Some(("", inside));
        }
        let end = format!("</{name}>");
        return inside.split_once(&end);
    }
}

fn unescaped(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        made.push_str(before);
        let entity = behind.split_once(';');
        let known = entity.and_then(|(entity, after)| Some((character(entity)?, after)));
        let Some((one, after)) = known else {
            made.push('&');
            rest = behind;
            continue;
        };
        made.push(one);
        rest = after;
    }
    made.push_str(rest);
    made
}

fn character(entity: &str) -> Option<char> {
    Some(match entity {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = entity.strip_prefix('#')?;
            let number = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(number)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_by_name_and_entities_put_back() {
        let document = "<?xml version=\"1.0\"?>\n<R xmlns=\"x\"><Keys>no</Keys><Key>a&amp;b &#x41;&#66; &lt;&quot;&unknown;</Key>\
                        <C><Key>1</Key></C><C><Key/></C><Empty /></R>";
        assert_eq!(text(document, "Key").unwrap(), "a&b AB <\"&unknown;");
        let inside: Vec<_> = each(document, "C").collect();
        assert_eq!(inside, ["<Key>1</Key>", "<Key/>"]);
        assert_eq!(text(inside[1], "Key").unwrap(), "");
        assert_eq!(text(document, "Empty").unwrap(), "");
        assert_eq!(text(document, "None"), None);
        assert_eq!(text("<Key>cut", "Key"), None);
    }
}
