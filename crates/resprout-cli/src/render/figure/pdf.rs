//! Drawings as PDF, in Helvetica, which every reader has.

use super::drawing::{Anchor, Drawing, Ink, Paint, Shape};
use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

const FONT: Name = Name(b"F");
/// What `currentColor` is on white.
const DARK: [u8; 3] = [0x22, 0x22, 0x22];
/// Widths of the letters from space to tilde in thousandths of their size, by Adobe's metrics of Helvetica.
const WIDTHS: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556, 556, 556,
    556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778,
    722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222,
    500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];

/// One page of the drawing's size, a point for a pixel. Letters outside of Latin-1 become question marks.
pub fn pdf(drawing: &Drawing) -> Vec<u8> {
    let mut content = Content::new();
    // Sheets grow downwards, pages upwards.
    content.transform([1.0, 0.0, 0.0, -1.0, 0.0, drawing.height as f32]);
    let mut opacities: Vec<u8> = Vec::new();
    for shape in &drawing.shapes {
        content.save_state();
        write(&mut content, shape, &mut opacities);
        content.restore_state();
    }
    let [catalog, pages, page, font, stream, info] = [1, 2, 3, 4, 5, 6].map(Ref::new);
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(pages);
    pdf.pages(pages).kids([page]).count(1);
    let mut sheet = pdf.page(page);
    sheet.media_box(Rect::new(0.0, 0.0, drawing.width as f32, drawing.height as f32)).parent(pages).contents(stream);
    let mut resources = sheet.resources();
    resources.fonts().pair(FONT, font);
    let mut states = resources.ext_g_states();
    for &percent in &opacities {
        let share = f32::from(percent) / 100.0;
        let mut state = states.insert(Name(state_name(percent).as_bytes())).start::<pdf_writer::writers::ExtGraphicsState>();
        state.stroking_alpha(share).non_stroking_alpha(share);
    }
    states.finish();
    resources.finish();
    sheet.finish();
    pdf.type1_font(font).base_font(Name(b"Helvetica")).encoding_predefined(Name(b"WinAnsiEncoding"));
    pdf.stream(stream, &content.finish());
    pdf.document_info(info).title(TextStr(&drawing.title));
    pdf.finish()
}

fn write(content: &mut Content, shape: &Shape, opacities: &mut Vec<u8>) {
    match shape {
        Shape::Line { points, paint } => {
            prepare(content, paint, opacities);
            path(content, points);
            content.stroke();
        }
        Shape::Area { points, paint } => {
            prepare(content, paint, opacities);
            path(content, points);
            content.close_path().fill_nonzero();
        }
        Shape::Box { corner, size, paint, hint: _ } => {
            prepare(content, paint, opacities);
            content.rect(corner.0 as f32, corner.1 as f32, size.0 as f32, size.1 as f32).fill_nonzero();
        }
        Shape::Dot { centre, radius, paint, hint: _ } => {
            prepare(content, paint, opacities);
            circle(content, centre.0 as f32, centre.1 as f32, *radius as f32);
        }
        Shape::Words { at, anchor, size, upwards, words } => {
            prepare(content, &Paint::new(Ink::Text), opacities);
            let letters: Vec<u8> = words.chars().map(|letter| u8::try_from(letter).unwrap_or(b'?')).collect();
            let length = letters.iter().map(|&letter| width(letter)).sum::<f32>() * *size as f32 / 1000.0;
            let back = match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => length / 2.0,
                Anchor::End => length,
            };
            let (x, y) = (at.0 as f32, at.1 as f32);
            // Letters stand upright in a sheet that is upside down.
            let matrix = match upwards {
                true => [0.0, -1.0, -1.0, 0.0, x, y + back],
                false => [1.0, 0.0, 0.0, -1.0, x - back, y],
            };
            content.begin_text().set_font(FONT, *size as f32).set_text_matrix(matrix).show(Str(&letters)).end_text();
        }
    }
}

fn prepare(content: &mut Content, paint: &Paint, opacities: &mut Vec<u8>) {
    let rgb = match paint.ink {
        Ink::Text => DARK,
        Ink::Rgb(rgb) => rgb,
    };
    let [r, g, b] = rgb.map(|value| f32::from(value) / 255.0);
    content.set_fill_rgb(r, g, b).set_stroke_rgb(r, g, b).set_line_width(paint.width as f32);
    if let Some(dash) = paint.dash {
        content.set_dash_pattern(dash.map(|length| length as f32), 0.0);
    }
    let percent = (paint.opacity.clamp(0.0, 1.0) * 100.0).round() as u8;
    if percent < 100 {
        if !opacities.contains(&percent) {
            opacities.push(percent);
        }
        content.set_parameters(Name(state_name(percent).as_bytes()));
    }
}

fn state_name(percent: u8) -> String {
    format!("G{percent}")
}

fn path(content: &mut Content, points: &[(f64, f64)]) {
    for (i, &(x, y)) in points.iter().enumerate() {
        let (x, y) = (x as f32, y as f32);
        if i == 0 {
            content.move_to(x, y)
        } else {
            content.line_to(x, y)
        };
    }
}

/// Four Bézier curves.
fn circle(content: &mut Content, x: f32, y: f32, radius: f32) {
    let k = 0.5523 * radius;
    content.move_to(x + radius, y);
    content.cubic_to(x + radius, y + k, x + k, y + radius, x, y + radius);
    content.cubic_to(x - k, y + radius, x - radius, y + k, x - radius, y);
    content.cubic_to(x - radius, y - k, x - k, y - radius, x, y - radius);
    content.cubic_to(x + k, y - radius, x + radius, y - k, x + radius, y);
    content.fill_nonzero();
}

/// In thousandths of the letter's size.
fn width(letter: u8) -> f32 {
    f32::from(letter.checked_sub(b' ').and_then(|index| WIDTHS.get(usize::from(index))).copied().unwrap_or(556))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_where_it_is_anchored() {
        let mut drawing = Drawing::new(100.0, 50.0, "t");
        drawing.text(90.0, 20.0, Anchor::End, "il±");
        let file = String::from_utf8_lossy(&pdf(&drawing)).into_owned();
        // 222, 222 and 556 thousandths of 11.
        assert!(file.contains("1 0 0 -1 79 20 Tm"), "{file}");
        assert!(file.starts_with("%PDF-") && file.trim_end().ends_with("%%EOF") && file.contains("/MediaBox [0 0 100 50]"));
    }

    #[test]
    fn each_opacity_is_defined_once() {
        let mut drawing = Drawing::new(10.0, 10.0, "t");
        (0..3).for_each(|_| drawing.line(vec![(0.0, 0.0), (1.0, 1.0)], Paint::grid()));
        let file = String::from_utf8_lossy(&pdf(&drawing)).into_owned();
        assert_eq!((file.matches("/G15 gs").count(), file.matches("/G15 <<").count()), (3, 1), "{file}");
    }
}
