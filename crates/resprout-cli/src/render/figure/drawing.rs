//! What a figure is drawn of, before it becomes SVG or PDF.

/// Shapes on a white sheet; `y` grows downwards.
pub struct Drawing {
    /// What it shows, for those who cannot see it.
    pub title: String,
    /// In pixels.
    pub width: f64,
    /// In pixels.
    pub height: f64,
    pub(super) shapes: Vec<Shape>,
}

/// How a line or a surface is painted.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    pub ink: Ink,
    /// From 0 to 1.
    pub opacity: f64,
    /// Width of lines.
    pub width: f64,
    /// Lengths of strokes and gaps; none: a solid line.
    pub dash: Option<[f64; 2]>,
}

/// A colour.
#[derive(Clone, Copy)]
pub(super) enum Ink {
    /// That of the text around.
    Text,
    /// Red, green and blue.
    Rgb([u8; 3]),
}

pub(super) enum Shape {
    Line { points: Vec<(f64, f64)>, paint: Paint },
    Area { points: Vec<(f64, f64)>, paint: Paint },
    Box { corner: (f64, f64), size: (f64, f64), paint: Paint, hint: String },
    Dot { centre: (f64, f64), radius: f64, paint: Paint, hint: String },
    Words { at: (f64, f64), anchor: Anchor, size: f64, upwards: bool, words: String },
}

/// Which point of a line of text `at` is.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Size of letters.
const LETTERS: f64 = 11.0;

impl Paint {
    /// Opaque, solid.
    pub fn new(ink: Ink) -> Paint {
        Paint { ink, opacity: 1.0, width: 1.0, dash: None }
    }

    /// The lines behind a plot.
    pub fn grid() -> Paint {
        Paint { opacity: 0.15, ..Paint::new(Ink::Text) }
    }
}

impl Drawing {
    /// An empty sheet.
    pub fn new(width: f64, height: f64, title: &str) -> Drawing {
        Drawing { title: title.into(), width: width.round(), height: height.round(), shapes: Vec::new() }
    }

    pub(super) fn line(&mut self, points: Vec<(f64, f64)>, paint: Paint) {
        self.shapes.push(Shape::Line { points, paint });
    }

    pub(super) fn text(&mut self, x: f64, y: f64, anchor: Anchor, words: &str) {
        self.shapes.push(Shape::Words { at: (x, y), anchor, size: LETTERS, upwards: false, words: words.into() });
    }

    /// Text that is read from below, and ends at this point.
    pub(super) fn upwards(&mut self, x: f64, y: f64, size: Option<f64>, words: &str) {
        let size = size.unwrap_or(LETTERS);
        self.shapes.push(Shape::Words { at: (x, y), anchor: Anchor::End, size, upwards: true, words: words.into() });
    }

    /// Names with the paint of their lines, in columns.
    pub(super) fn legend(&mut self, left: f64, top: f64, columns: usize, width: f64, names: &[(String, Paint)]) {
        for (i, (name, paint)) in names.iter().enumerate() {
            let (x, y) = (left + width * (i % columns) as f64, top + 16.0 * (i / columns) as f64);
            self.line(vec![(x, y - 4.0), (x + 18.0, y - 4.0)], Paint { width: 3.0, opacity: 1.0, ..*paint });
            self.text(x + 23.0, y, Anchor::Start, name);
        }
    }
}
