//! A study's page: one file that works from the disk, and its figures as files.

use super::figure::heatmap::{Heatmap, HeatmapCell, heatmap};
use super::figure::lines::{Line, chart};
use super::figure::{Figure, bars::bars, ranges::ranges, short};
use super::study_frame::{Section, StudyPage, unnamed};
use super::{study_table, study_words};
use resprout::Result;
use resprout::study::analysis::{Analysis, ModelStudy};
use resprout::study::curves::{Configuration, Curve, Point, ascending};
use std::path::Path;

/// Writes `report.html`, tables, and each figure as SVG, PDF and CSV into `figures/`.
pub fn write(study: &Analysis, folder: &Path) -> Result<()> {
    let section = |model: &ModelStudy| Section {
        name: model.name.clone(),
        summary: study_words::dense(model),
        best: study_words::recommendation(model, &study.constraints),
        findings: study_words::findings(model, &study.thresholds),
        figures: figures(model),
    };
    let points = study.models.iter().flat_map(|model| {
        model.curves.iter().flat_map(move |curve| curve.points.iter().map(move |point| row(model, &curve.configuration, point)))
    });
    let page = StudyPage {
        title: "A study of sparsity and repair",
        legend: "Bands and brackets: 95 % intervals from the number of test images; ± and sd: over seeds.",
        tool_version: &study.tool_version,
        recipe: &study.recipe,
        notes: &study.notes,
        failures: study.failures.iter().map(study_words::failure).collect(),
        sections: study.models.iter().map(section).collect(),
        columns: &COLUMNS,
        rows: points.collect(),
        choices: &[0, 3, 4],
    };
    page.write(folder)?;
    study_table::write(&study_table::of_study(study), folder)
}

const COLUMNS: [(&str, bool); 17] = [
    ("model", true),
    ("pattern", true),
    ("criterion", true),
    ("allocation", true),
    ("repair", true),
    ("calibration", false),
    ("requested %", false),
    ("realised %", false),
    ("compression", false),
    ("MACs saved", false),
    ("sparse bytes", false),
    ("metric %", false),
    ("low", false),
    ("high", false),
    ("sd", false),
    ("seeds", false),
    ("KL", false),
];

fn row(model: &ModelStudy, configuration: &Configuration, point: &Point) -> Vec<String> {
    let percent = |share: f64| format!("{:.2}", share * 100.0);
    vec![
        model.name.clone(),
        configuration.pattern.clone(),
        configuration.criterion.clone(),
        configuration.allocation.clone(),
        configuration.repair.clone(),
        configuration.calibration_images.to_string(),
        percent(point.sparsity),
        percent(point.realised),
        format!("{:.2}", point.compression_ratio),
        point.theoretical_speedup.map_or(String::new(), |x| format!("{x:.2}")),
        point.sparse_bytes.to_string(),
        percent(point.value),
        percent(point.interval[0]),
        percent(point.interval[1]),
        point.sd.map_or(String::new(), percent),
        point.seeds.to_string(),
        point.kl.map_or(String::new(), |kl| format!("{kl:.4}")),
    ]
}

/// Curves that are the same but for allocation, repair, or both, in groups.
fn kinds(curves: &[Curve], same: fn(&Configuration, &Configuration) -> bool) -> Vec<Vec<&Curve>> {
    let mut groups: Vec<Vec<&Curve>> = Vec::new();
    for curve in curves {
        match groups.iter_mut().find(|group| same(&group[0].configuration, &curve.configuration)) {
            Some(group) => group.push(curve),
            None => groups.push(vec![curve]),
        }
    }
    groups
}

fn prefix(configuration: &Configuration, curves: &[Curve]) -> String {
    let several = curves.iter().any(|curve| curve.configuration.calibration_images != configuration.calibration_images);
    let mut words = Vec::new();
    words.extend((configuration.pattern != "unstructured").then(|| configuration.pattern.clone()));
    words.extend((configuration.criterion != "magnitude").then(|| configuration.criterion.clone()));
    words.extend(several.then(|| format!("{} calibration images", configuration.calibration_images)));
    words.iter().map(|word| format!("{word}, ")).collect()
}

fn figures(model: &ModelStudy) -> Vec<Figure> {
    let curves = &model.curves;
    let mut all: Vec<Figure> = winner_figure(model).into_iter().chain(transition_figure(model)).collect();
    for group in kinds(curves, Configuration::same_but_repair) {
        let configuration = &group[0].configuration;
        let title = format!("{}{}: repairs", prefix(configuration, curves), configuration.allocation);
        all.push(curve_figure(model, title, &group, |configuration| configuration.repair.clone()));
    }
    for group in kinds(curves, Configuration::same_but_allocation) {
        let configuration = &group[0].configuration;
        if group.len() > 1 {
            let title = format!("{}repair {}: allocations", prefix(configuration, curves), configuration.repair);
            all.push(curve_figure(model, title, &group, |configuration| configuration.allocation.clone()));
        }
    }
    all.extend(calibration_figures(model));
    all.extend(layer_figures(model));
    all
}

fn curve_figure(model: &ModelStudy, title: String, curves: &[&Curve], name: fn(&Configuration) -> String) -> Figure {
    let ends: Vec<f64> = curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.sparsity)).collect();
    let (low, high) = ends.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &s| (low.min(s), high.max(s)));
    let level = |name: &str, value: f64| Line {
        name: name.into(),
        points: vec![(low * 100.0, value * 100.0), (high * 100.0, value * 100.0)],
        reference: true,
        ..Line::default()
    };
    let mut lines = vec![level("dense", model.dense_value), level("chance", model.chance)];
    let mut rows = Vec::new();
    for curve in curves {
        let name = name(&curve.configuration);
        for p in &curve.points {
            let numbers = [p.sparsity, p.value, p.interval[0], p.interval[1]].map(|v| v.to_string());
            rows.push([vec![name.clone()], numbers.to_vec(), vec![p.sd.map_or(String::new(), |sd| sd.to_string())]].concat());
        }
        lines.push(Line {
            name,
            points: curve.points.iter().map(|p| (p.sparsity * 100.0, p.value * 100.0)).collect(),
            band: curve.points.iter().map(|p| (p.sparsity * 100.0, p.interval[0] * 100.0, p.interval[1] * 100.0)).collect(),
            reference: false,
        });
    }
    let drawing = chart(&title, "sparsity, %", &format!("{}, %", model.metric.name()), &lines);
    unnamed(drawing, vec!["name", "sparsity", "value", "low", "high", "sd"], rows)
}

/// The best allocation by repair and sparsity.
fn winner_figure(model: &ModelStudy) -> Option<Figure> {
    let sparsities = ascending(model.winners.iter().map(|winner| winner.sparsity));
    let (mut names, mut kinds): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let row_name = |configuration: &Configuration| format!("{}{}", prefix(configuration, &model.curves), configuration.repair);
    for winner in &model.winners {
        let (name, kind) = (row_name(&winner.configuration), winner.configuration.allocation.clone());
        names.extend((!names.contains(&name)).then_some(name));
        kinds.extend((!kinds.contains(&kind)).then_some(kind));
    }
    let cell = |name: &String, sparsity: f64| {
        let winner = model.winners.iter().find(|w| row_name(&w.configuration) == *name && w.sparsity == sparsity)?;
        let kind = kinds.iter().position(|kind| *kind == winner.configuration.allocation)?;
        let words = format!("{:.1}", winner.value * 100.0);
        Some(HeatmapCell { share: if winner.clear { 1.0 } else { 0.4 }, kind, words })
    };
    let map = Heatmap {
        cells: names.iter().map(|name| sparsities.iter().map(|&s| cell(name, s)).collect()).collect(),
        rows: names,
        columns: sparsities.iter().map(|s| short(s * 100.0)).collect(),
        column_name: "sparsity, %".into(),
        kinds,
    };
    let title = format!("Which allocation wins: its {}, in strong colour where it is clearly ahead", model.metric.name());
    let row = |w: &resprout::study::regime::Winner| {
        let second = w.second.as_ref();
        vec![
            row_name(&w.configuration),
            w.sparsity.to_string(),
            w.configuration.allocation.clone(),
            w.value.to_string(),
            second.map_or(String::new(), |(name, _)| name.clone()),
            second.map_or(String::new(), |(_, ahead)| ahead.to_string()),
            w.clear.to_string(),
        ]
    };
    (!map.rows.is_empty()).then(|| {
        let columns = vec!["repair", "sparsity", "best", "value", "second", "ahead", "clear"];
        unnamed(heatmap(&title, &map), columns, model.winners.iter().map(row).collect())
    })
}

fn transition_figure(model: &ModelStudy) -> Option<Figure> {
    let mut allocations: Vec<&str> = Vec::new();
    let sparsities = || model.curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.sparsity * 100.0));
    let axis = [sparsities().fold(f64::INFINITY, f64::min), sparsities().fold(f64::NEG_INFINITY, f64::max)];
    let mut bars = Vec::new();
    let mut rows = Vec::new();
    for transition in model.transitions.iter().filter(|transition| !transition.ranges.is_empty()) {
        let allocation = transition.configuration.allocation.as_str();
        allocations.extend((!allocations.contains(&allocation)).then_some(allocation));
        let kind = allocations.iter().position(|a| *a == allocation).unwrap_or(0);
        let name =
            format!("{}{allocation}, {}", prefix(&transition.configuration, &model.curves), transition.configuration.repair);
        rows.extend(
            transition
                .ranges
                .iter()
                .map(|[from, to]| vec![name.clone(), from.to_string(), to.to_string(), transition.open.to_string()]),
        );
        bars.push((name, kind, transition.ranges.iter().map(|range| range.map(|end| end * 100.0)).collect()));
    }
    let title = "Transition regime: recalibration fails, repair still recovers";
    (!bars.is_empty()).then(|| unnamed(ranges(title, "sparsity, %", axis, &bars), vec!["name", "from", "to", "open"], rows))
}

/// Where several numbers of calibration images were tried: one figure for each allocation, at the highest sparsity
/// where anything is left.
fn calibration_figures(model: &ModelStudy) -> Vec<Figure> {
    let alike = |a: &Configuration, b: &Configuration| {
        Configuration { calibration_images: 0, repair: String::new(), ..a.clone() }
            == Configuration { calibration_images: 0, repair: String::new(), ..b.clone() }
    };
    let several = |group: &Vec<&Curve>| {
        group.iter().any(|curve| curve.configuration.calibration_images != group[0].configuration.calibration_images)
    };
    let alive = model.chance + (model.dense_value - model.chance) / 2.0;
    let figure = |group: Vec<&Curve>| {
        let points = group.iter().flat_map(|curve| &curve.points).filter(|point| point.value >= alive);
        let sparsity = points.map(|point| point.sparsity).max_by(f64::total_cmp)?;
        let mut lines: Vec<Line> = Vec::new();
        let mut rows = Vec::new();
        for curve in &group {
            let Some(point) = curve.at(sparsity) else { continue };
            let (repair, images) = (&curve.configuration.repair, curve.configuration.calibration_images);
            rows.push(vec![repair.clone(), images.to_string(), point.value.to_string()]);
            let at = (images as f64, point.value * 100.0);
            match lines.iter_mut().find(|line| line.name == *repair) {
                Some(line) => line.points.push(at),
                None => lines.push(Line { name: repair.clone(), points: vec![at], ..Line::default() }),
            }
        }
        lines.iter_mut().for_each(|line| line.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
        let title = format!("{}: calibration images at {} %", group[0].configuration.allocation, short(sparsity * 100.0));
        let drawing = chart(&title, "calibration images", &format!("{}, %", model.metric.name()), &lines);
        Some(unnamed(drawing, vec!["repair", "images", "value"], rows))
    };
    kinds(&model.curves, alike).into_iter().filter(several).filter_map(figure).collect()
}

/// One value per layer of a point.
type OfLayers = fn(&Point) -> &[Option<f64>];

fn layer_figures(model: &ModelStudy) -> Vec<Figure> {
    let mut all = Vec::new();
    let layers = &model.dense.layers;
    let shown = |repair: Option<&str>| {
        let known = kinds(&model.curves, Configuration::same_but_repair).into_iter();
        let pick = move |group: Vec<&Curve>| match repair {
            Some(repair) => group.iter().copied().find(|curve| curve.configuration.repair == repair).cloned(),
            None => group.iter().copied().max_by(|a, b| area(a).total_cmp(&area(b))).cloned(),
        };
        known.filter_map(pick).collect::<Vec<Curve>>()
    };
    let has_diagnostics = |curve: &Curve| curve.points.iter().any(|point| !point.diagnostics.kept_variance.is_empty());
    for curve in shown(Some("none")).iter().filter(|curve| has_diagnostics(curve)) {
        let name = format!("{}{}", prefix(&curve.configuration, &model.curves), curve.configuration.allocation);
        all.push(layer_map(format!("{name}: variance kept without repair, by depth"), layers, curve, |point| {
            &point.diagnostics.kept_variance
        }));
        all.push(layer_map(
            format!("{name}: Relative Repairability, the share of local damage that no rescaling repairs"),
            layers,
            curve,
            |point| &point.diagnostics.unrepairable,
        ));
    }
    for curve in shown(None).iter().filter(|curve| has_diagnostics(curve)) {
        let name = format!("{}{}", prefix(&curve.configuration, &model.curves), curve.configuration.allocation);
        let title = format!("{name}: correlation with the dense network after {}, by depth", curve.configuration.repair);
        all.push(layer_map(title, layers, curve, |point| &point.diagnostics.correlation));
    }
    all.extend(density_figure(model));
    all
}

/// The sum of a curve's values: which repair is best over all.
fn area(curve: &Curve) -> f64 {
    curve.points.iter().map(|point| point.value).sum()
}

fn layer_map(title: String, layers: &[String], curve: &Curve, of: OfLayers) -> Figure {
    let cell = |layer: usize, point: &Point| {
        let value = of(point).get(layer).copied().flatten()?;
        Some(HeatmapCell { share: value, kind: 0, words: format!("{value:.2}") })
    };
    let map = Heatmap {
        rows: layers.to_vec(),
        columns: curve.points.iter().map(|point| short(point.sparsity * 100.0)).collect(),
        column_name: "sparsity, %".into(),
        cells: (0..layers.len()).map(|l| curve.points.iter().map(|point| cell(l, point)).collect()).collect(),
        kinds: Vec::new(),
    };
    let rows = curve.points.iter().flat_map(|point| {
        let value = move |(layer, name): (usize, &String)| {
            let value = of(point).get(layer).copied().flatten();
            vec![name.clone(), point.sparsity.to_string(), value.map_or(String::new(), |v| v.to_string())]
        };
        layers.iter().enumerate().map(value)
    });
    unnamed(heatmap(&title, &map), vec!["layer", "sparsity", "value"], rows.collect())
}

/// What each allocation gives each layer, at the measured sparsity that is nearest to 90 %.
fn density_figure(model: &ModelStudy) -> Option<Figure> {
    let points = model.curves.iter().flat_map(|curve| &curve.points);
    let sparsity = points.map(|point| point.sparsity).min_by(|a, b| (a - 0.9).abs().total_cmp(&(b - 0.9).abs()))?;
    let mut series: Vec<(String, Vec<f64>)> = Vec::new();
    for group in kinds(&model.curves, Configuration::same_but_repair) {
        let name = format!("{}{}", prefix(&group[0].configuration, &model.curves), group[0].configuration.allocation);
        let point = group[0].at(sparsity).filter(|point| !point.diagnostics.density.is_empty());
        series.extend(
            point.filter(|_| !series.iter().any(|(known, _)| *known == name)).map(|p| (name, p.diagnostics.density.clone())),
        );
    }
    let layers = &model.dense.layers;
    let title = format!("Density of each layer at {} %", short(sparsity * 100.0));
    let rows = series.iter().flat_map(|(name, values)| {
        layers.iter().zip(values).map(move |(layer, value)| vec![layer.clone(), name.clone(), value.to_string()])
    });
    let columns = vec!["layer", "allocation", "density"];
    (!series.is_empty()).then(|| unnamed(bars(&title, "density", layers, &series), columns, rows.collect()))
}
