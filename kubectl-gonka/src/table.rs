//! Columns of text, padded to the widest cell; numbers to the right.

/// A header and rows as lines. A row shorter than the header is padded with empty cells.
pub(crate) fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or_default()
        })
        .collect();
    let header: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let cells: Vec<String> = widths
            .iter()
            .enumerate()
            .map(|(column, width)| pad(row.get(column).map_or("", String::as_str), *width))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn pad(cell: &str, width: usize) -> String {
    let number = !cell.is_empty()
        && cell
            .chars()
            .all(|character| character.is_ascii_digit() || ".-+".contains(character));
    if number {
        format!("{cell:>width$}")
    } else {
        format!("{cell:<width$}")
    }
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn pads_to_the_widest_cell_and_aligns_numbers_right() {
        let rows = vec![
            vec!["slot-0".to_owned(), "7".to_owned()],
            vec!["s".to_owned(), "1234".to_owned(), "x".to_owned()],
        ];
        assert_eq!(
            render(&["NAME", "NONCES", ""], &rows),
            "NAME    NONCES\nslot-0       7\ns         1234  x\n"
        );
    }
}
