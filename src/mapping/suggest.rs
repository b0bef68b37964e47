//! "Did you mean …": the nearest names to one that was not found.
//!
//! Most wrong names are right ones with a letter off, or a label where a name was meant; saying which one spares a person
//! the search.

/// Longer names are compared by this many characters: the comparison is quadratic.
const COMPARED_CHARS: usize = 64;

/// Candidates looked at: HubSpot allows 1,000 properties an object; lists of options can be longer, and a reject must stay cheap.
const CANDIDATES_MAX: usize = 2_000;

/// Up to `limit` candidates that are near `name`, the nearest first, each once.
///
/// Case, spaces and `_`/`-` do not count. A candidate is near when about a third of its letters at most would have to
/// change, or when one of the two begins with the other.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>, limit: usize) -> Vec<&'a str> {
    let name = squeeze(name);
    let length = name.chars().count();
    if length == 0 || limit == 0 {
        return Vec::new();
    }
    let mut found: Vec<(usize, &'a str)> = Vec::new();
    for candidate in candidates.into_iter().take(CANDIDATES_MAX) {
        let squeezed = squeeze(candidate);
        let candidate_length = squeezed.chars().count();
        let allowed = (length.max(candidate_length) / 3).max(1);
        let begins = length.min(candidate_length) >= 3 && (squeezed.starts_with(&name) || name.starts_with(&squeezed));
        if length.abs_diff(candidate_length) > allowed && !begins {
            continue;
        }
        let distance = strsim::damerau_levenshtein(&name, &squeezed);
        // What merely begins alike comes after what is spelled alike.
        let rank = if distance <= allowed {
            distance
        } else if begins {
            COMPARED_CHARS + distance
        } else {
            continue;
        };
        if !found.iter().any(|(_, other)| *other == candidate) {
            found.push((rank, candidate));
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().take(limit).map(|(_, candidate)| candidate).collect()
}

/// The one nearest candidate, if any is near.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(name, candidates, 1).into_iter().next()
}

/// A name without case, spaces, `_` and `-`, cut to what is compared.
pub(crate) fn squeeze(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .take(COMPARED_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_off_is_found_and_the_nearest_comes_first() {
        let names = ["lifecyclestage", "firstname", "lastname", "email", "hs_email_domain"];
        assert_eq!(closest("frstname", names), Some("firstname"));
        assert_eq!(closest("Life Cycle Stage", names), Some("lifecyclestage"));
        assert_eq!(closest("e-mail", names), Some("email"));
        assert_eq!(nearest("lastnam", ["lastnames", "firstname", "lastname"], 3), ["lastname", "lastnames"]);
    }

    #[test]
    fn what_is_far_off_is_not_suggested() {
        assert_eq!(closest("favourite_colour", ["email", "phone"]), None);
        assert_eq!(closest("", ["email"]), None);
        assert_eq!(closest("x", ["email", "fax"]), None);
    }

    #[test]
    fn the_beginning_of_a_name_finds_it() {
        assert_eq!(closest("Customer", ["Lead", "Customer (paying, active)"]), Some("Customer (paying, active)"));
    }
}
