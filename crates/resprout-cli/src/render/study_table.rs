//! The table of a study, configurations by sparsities: on the terminal, and as files for papers and programs.

use super::figure::short;
use super::numbers::percent;
use resprout::Result;
use resprout::formats::atomic;
use resprout::study::analysis::{Analysis, ModelStudy};
use resprout::study::curves::{Curve, OverSeeds, Point, ascending};
use resprout_train::study::TrainAnalysis;
use resprout_train::study::analysis::{NetworkStudy, TrainCurve};
use std::path::Path;

/// The table of one model.
pub struct StudyTable {
    pub model: String,
    pub metric: &'static str,
    pub sparsities: Vec<f64>,
    /// A configuration's name, and its value at each of the sparsities.
    pub rows: Vec<(String, Vec<Option<OverSeeds>>)>,
}

impl StudyTable {
    /// Of configurations, each with its sparsities and values.
    fn new(model: &str, metric: &'static str, rows: Vec<(String, Vec<(f64, OverSeeds)>)>) -> StudyTable {
        let sparsities = ascending(rows.iter().flat_map(|(_, points)| points.iter().map(|(sparsity, _)| *sparsity)));
        let row = |(name, points): (String, Vec<(f64, OverSeeds)>)| {
            let at = |s: &f64| points.iter().find(|(sparsity, _)| sparsity == s).map(|(_, value)| *value);
            (name, sparsities.iter().map(at).collect())
        };
        StudyTable { model: model.into(), metric, rows: rows.into_iter().map(row).collect(), sparsities: sparsities.clone() }
    }

    /// Sparsities in ascending order, in percent.
    pub fn header(&self) -> Vec<String> {
        self.sparsities.iter().map(|s| percent(*s)).collect()
    }
}

pub fn of_study(study: &Analysis) -> Vec<StudyTable> {
    let value = |p: &Point| (p.sparsity, OverSeeds { value: p.value, interval: p.interval, sd: p.sd, seeds: p.seeds });
    let row = |curve: &Curve| (curve.configuration.name(), curve.points.iter().map(value).collect());
    let of_model = |model: &ModelStudy| StudyTable::new(&model.name, model.metric.name(), model.curves.iter().map(row).collect());
    study.models.iter().map(of_model).collect()
}

pub fn of_training(study: &TrainAnalysis) -> Vec<StudyTable> {
    let row = |curve: &TrainCurve| {
        (curve.configuration.name(), curve.points.iter().map(|point| (point.sparsity, point.test)).collect())
    };
    let of_network = |network: &NetworkStudy| StudyTable::new(&network.name, "top-1", network.curves.iter().map(row).collect());
    study.networks.iter().map(of_network).collect()
}

/// A value in percent, with its deviation over seeds behind `sign`.
pub fn words(value: Option<&OverSeeds>, sign: &str) -> String {
    let words = |v: &OverSeeds| {
        let sd = v.sd.map_or(String::new(), |sd| format!(" {sign} {:.2}", sd * 100.0));
        format!("{:.2}{sd}", v.value * 100.0)
    };
    value.map_or("-".into(), words)
}

/// Writes `table.md`, `table.tex` and `table.csv`.
pub fn write(tables: &[StudyTable], folder: &Path) -> Result<()> {
    let all = |one: fn(&StudyTable) -> String| tables.iter().map(one).collect::<Vec<_>>().join("\n");
    atomic::write(&folder.join("table.md"), all(markdown).as_bytes())?;
    atomic::write(&folder.join("table.tex"), all(latex).as_bytes())?;
    let header = "model,configuration,sparsity,value,low,high,sd,seeds\n";
    let rows: String = tables.iter().map(csv).collect();
    atomic::write(&folder.join("table.csv"), format!("{header}{rows}").as_bytes())
}

fn markdown(table: &StudyTable) -> String {
    // A bar in a name would end its cell.
    let line = |cells: Vec<String>| {
        format!("| {} |\n", cells.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
    };
    let mut text = format!("{}, {} in %\n\n", table.model, table.metric);
    text += &line([vec!["".into()], table.header()].concat());
    text += &line([vec!["---".to_string()], vec!["---:".into(); table.sparsities.len()]].concat());
    for (name, values) in &table.rows {
        let cells = values.iter().map(|value| words(value.as_ref(), "±")).collect();
        text += &line([vec![name.clone()], cells].concat());
    }
    text
}

fn latex(table: &StudyTable) -> String {
    let mut text = format!(
        "% {}, {} in percent\n\\begin{{tabular}}{{l{}}}\n\\hline\n",
        table.model,
        table.metric,
        "r".repeat(table.sparsities.len())
    );
    let line = |cells: Vec<String>| cells.join(" & ") + " \\\\\n";
    let header = table.sparsities.iter().map(|s| format!("{}\\,\\%", short(s * 100.0))).collect();
    text += &(line([vec!["".into()], header].concat()) + "\\hline\n");
    for (name, values) in &table.rows {
        let cells = values.iter().map(|value| words(value.as_ref(), "$\\pm$")).collect();
        text += &line([vec![for_latex(name)], cells].concat());
    }
    text + "\\hline\n\\end{tabular}\n"
}

fn for_latex(text: &str) -> String {
    let letter = |letter: char| match letter {
        '\\' => "\\textbackslash{}".to_string(),
        '~' => "\\textasciitilde{}".into(),
        '^' => "\\textasciicircum{}".into(),
        '·' => "$\\cdot$".into(),
        '&' | '%' | '$' | '#' | '_' | '{' | '}' => format!("\\{letter}"),
        _ => letter.to_string(),
    };
    text.chars().map(letter).collect()
}

/// Numbers in full, a line for each point.
fn csv(table: &StudyTable) -> String {
    let mut text = String::new();
    for (name, values) in &table.rows {
        for (sparsity, v) in table.sparsities.iter().zip(values).filter_map(|(s, value)| Some((s, value.as_ref()?))) {
            let names = [&table.model, name].map(|cell| super::figure::quoted(cell)).join(",");
            let sd = v.sd.map_or(String::new(), |sd| sd.to_string());
            text += &format!("{names},{sparsity},{},{},{},{sd},{}\n", v.value, v.interval[0], v.interval[1], v.seeds);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_escaped_and_have_deviations() {
        let value = OverSeeds { value: 0.5, interval: [0.25, 0.75], sd: Some(0.125), seeds: 2 };
        let rows = vec![("a_b · c|d, e".to_string(), vec![Some(value), None])];
        let table = StudyTable { model: "net".into(), metric: "top-1", sparsities: vec![0.9, 0.95], rows };
        assert!(latex(&table).contains("a\\_b $\\cdot$ c|d, e & 50.00 $\\pm$ 12.50 & - \\\\\n"));
        assert!(markdown(&table).contains("| a_b · c\\|d, e | 50.00 ± 12.50 | - |\n"));
        assert_eq!(csv(&table), "net,\"a_b · c|d, e\",0.9,0.5,0.25,0.75,0.125,2\n");
    }
}
