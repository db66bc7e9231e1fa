//! Every figure on every shape, on every output.

use xml::reader::{EventReader, XmlEvent};

use super::fixture::comparisons;
use super::shapes;
use crate::bench::Bench;
use crate::canvas::{to_pixels, to_svg};
use crate::data::Data;
use crate::figures::{FIGURES, NARROW, WIDE};

/// Parses strictly; returns the texts and their font sizes.
pub(super) fn texts(svg: &str) -> Vec<(f64, String)> {
    let mut texts = Vec::new();
    let mut size = None;
    for event in EventReader::new(svg.as_bytes()) {
        match event.unwrap_or_else(|error| panic!("{error} in {}", &svg[..svg.len().min(500)])) {
            XmlEvent::StartElement { name, attributes, .. } => {
                for attribute in &attributes {
                    assert!(!attribute.value.contains("NaN"), "{name}: {attribute}");
                }
                let found = attributes.iter().find(|a| a.name.local_name == "font-size");
                size = found.map(|a| a.value.parse().unwrap());
            }
            XmlEvent::Characters(text) => texts.push((size.unwrap_or(0.0), text)),
            _ => {}
        }
    }
    texts
}

#[test]
fn figures_draw_on_every_output() {
    let mut drawn = std::collections::BTreeSet::new();
    let benches = [super::bench::result("tiny"), super::bench::result(&"long name ".repeat(9))];
    for (shape, analyses) in shapes() {
        let comparisons = comparisons(&analyses);
        let mut data = Data::new(&analyses, &comparisons);
        data.benches = Bench::all(&benches);
        for figure in FIGURES {
            let place = format!("{} of {shape}", figure.id);
            if let Err(reason) = (figure.applicable)(&data) {
                assert!(!reason.is_empty() && !reason.ends_with('.'), "{place}: {reason}");
                continue;
            }
            drawn.insert(figure.id);
            for width in [WIDE, NARROW] {
                let svg = || to_svg(width, |c| (figure.draw)(c, &data)).unwrap();
                let drawing = svg();
                assert_eq!(drawing, svg(), "{place} differs from drawing to drawing");
                let texts = texts(&drawing);
                assert!(texts.len() > 4, "{place} has no labels");
                for (size, text) in texts {
                    assert!(size >= 11.5, "{place}: `{text}` at {size} px");
                }
                // Two layouts of the largest model must not make the page unwieldy.
                assert!(drawing.len() < 600_000, "{place}: {} bytes", drawing.len());
            }
            let caption = format!("{:?}", (figure.caption)(&data));
            assert!(!caption.contains("NaN"), "{place}: {caption}");
            assert!(!(figure.table)(&data).is_empty(), "{place}");
        }
    }
    let missing: Vec<_> = FIGURES.iter().filter(|f| !drawn.contains(f.id)).map(|f| f.id).collect();
    assert_eq!(missing, Vec::<&str>::new(), "never drawn");
}

#[test]
fn pixels_have_paper_marks_and_text() {
    let (_, analyses) = shapes().swap_remove(1);
    let comparisons = comparisons(&analyses);
    let benches = [super::bench::result("tiny")];
    let mut data = Data::new(&analyses, &comparisons);
    data.benches = Bench::all(&benches);
    for figure in FIGURES {
        let draw = || to_pixels(NARROW, |c| (figure.draw)(c, &data)).unwrap();
        let (w, h, pixels) = draw();
        assert_eq!(pixels.len(), (w * h * 3) as usize);
        assert_eq!(pixels, draw().2, "{} differs from drawing to drawing", figure.id);
        let count = |wanted: fn(&[u8]) -> bool| pixels.chunks(3).filter(|p| wanted(p)).count();
        let white = count(|p| p == [255, 255, 255]);
        let coloured = count(|p| p.iter().max().unwrap() - p.iter().min().unwrap() > 40);
        // Text is near-black; nothing else is.
        let dark = count(|p| p.iter().all(|c| *c < 70));
        assert!(
            white > 1000 && coloured > 100 && dark > 100,
            "{} {white} {coloured} {dark}",
            figure.id
        );
    }
}
