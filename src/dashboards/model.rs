//! What dashboards are made of.
//!
//! In: words of the tables beside this file. Out: [`Board`]s, which `json` writes. Builders only; nothing is computed.
//! Invariant: a panel's place follows from its size and its turn, so panels cannot overlap.

use super::promql::text;

/// A dashboard.
#[derive(Debug, Clone)]
pub struct Board {
    /// Constant address: `/d/<uid>`.
    pub uid: &'static str,
    /// Title.
    pub title: &'static str,
    /// Whom it is for and what it answers.
    pub about: &'static str,
    /// Beginning of the time shown.
    pub from: &'static str,
    /// Variables beside the data sources.
    pub variables: Vec<Variable>,
    /// Rows, most important first.
    pub rows: Vec<Row>,
}

/// A variable of a dashboard.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Name, as queries say it.
    pub name: &'static str,
    /// What people read.
    pub label: &'static str,
    /// `label_values(…)`, or the values of a custom variable, comma-separated.
    pub query: String,
    /// What it may be.
    pub need: Need,
    /// Not shown: other variables decide it.
    pub hidden: bool,
}

/// What a variable may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// One value.
    One,
    /// Several, or all as this regular expression.
    All(&'static str),
    /// Several, or all as the list of them.
    Listed,
    /// One of a fixed list; the second word is the first choice.
    Fixed(&'static str),
}

impl Variable {
    /// A variable whose values come from Prometheus.
    pub fn new(name: &'static str, label: &'static str, query: &str, need: Need) -> Self {
        Self { name, label, query: text(query), need, hidden: false }
    }

    /// Not shown.
    pub fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }
}

/// A heading with panels.
#[derive(Debug, Clone)]
pub struct Row {
    /// Heading; empty for none.
    pub title: &'static str,
    /// Panels, left to right, line by line.
    pub panels: Vec<Panel>,
}

/// Where a query goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// PromQL.
    Prometheus,
    /// LogQL.
    Loki,
    /// TraceQL.
    Tempo,
}

/// A query of a panel.
#[derive(Debug, Clone)]
pub struct Query {
    /// Who answers it.
    pub source: Source,
    /// Its text.
    pub expr: String,
    /// Name of its series.
    pub legend: &'static str,
    /// One value now instead of values over time.
    pub instant: bool,
    /// Without data while nothing is wrong.
    pub quiet: bool,
    /// Traces of single requests are drawn with it.
    pub exemplars: bool,
}

/// From which value on a colour holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// From this value on; the first of a list holds from below.
    pub from: f64,
    /// Grafana's name of the colour.
    pub color: &'static str,
    /// What it means, in a word; empty where the value says it.
    pub word: &'static str,
}

/// A column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Label, or the number of the query as `#0`.
    pub field: String,
    /// Heading.
    pub title: &'static str,
    /// Unit; empty for text.
    pub unit: &'static str,
    /// Colours, with words.
    pub levels: Vec<Level>,
    /// Where a click leads, with a title.
    pub link: Option<(&'static str, &'static str)>,
}

/// How a panel is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number with a sparkline.
    Stat,
    /// Lines over time.
    Series,
    /// Lines over time, piled up.
    Stacked,
    /// Rows and columns.
    Table,
    /// Buckets over time.
    Heatmap,
    /// States over time.
    Timeline,
    /// Lines of logs.
    Logs,
    /// Traces.
    Traces,
}

/// A panel.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Title.
    pub title: &'static str,
    /// What it shows and what to do about it.
    pub about: &'static str,
    /// How it is drawn.
    pub kind: Kind,
    /// Grafana's name of the unit.
    pub unit: &'static str,
    /// Columns of 24.
    pub width: u32,
    /// Rows of 30 pixels.
    pub height: u32,
    /// Queries.
    pub queries: Vec<Query>,
    /// Columns of a table.
    pub columns: Vec<Column>,
    /// Heading and direction by which a table is sorted; the most at the top.
    pub sorted: Option<(&'static str, bool)>,
    /// Colours.
    pub levels: Vec<Level>,
    /// What stands there when there is no data.
    pub none: &'static str,
    /// Largest value of the axis.
    pub max: Option<f64>,
    /// Where a click on a series leads.
    pub link: Option<(&'static str, &'static str)>,
    /// The lowest value may be negative.
    pub signed: bool,
    /// Lines at the levels.
    pub marked: bool,
}

impl Panel {
    fn new(kind: Kind, title: &'static str, about: &'static str) -> Self {
        let (width, height) = match kind {
            Kind::Stat => (4, 4),
            Kind::Table | Kind::Logs | Kind::Traces => (24, 9),
            _ => (12, 8),
        };
        Self {
            title,
            about,
            kind,
            unit: "short",
            width,
            height,
            queries: Vec::new(),
            columns: Vec::new(),
            sorted: None,
            levels: Vec::new(),
            none: "no data",
            max: None,
            link: None,
            signed: false,
            marked: false,
        }
    }

    /// A number.
    pub fn stat(title: &'static str, about: &'static str) -> Self {
        Self::new(Kind::Stat, title, about)
    }

    /// Lines over time.
    pub fn series(title: &'static str, about: &'static str) -> Self {
        Self::new(Kind::Series, title, about)
    }

    /// Piled lines.
    pub fn stacked(title: &'static str, about: &'static str) -> Self {
        Self::new(Kind::Stacked, title, about)
    }

    /// A table.
    pub fn table(title: &'static str, about: &'static str) -> Self {
        Self { unit: "none", ..Self::new(Kind::Table, title, about) }
    }

    /// A heatmap of seconds.
    pub fn heatmap(title: &'static str, about: &'static str) -> Self {
        Self { unit: "s", ..Self::new(Kind::Heatmap, title, about) }
    }

    /// States over time.
    pub fn timeline(title: &'static str, about: &'static str) -> Self {
        Self { unit: "none", ..Self::new(Kind::Timeline, title, about) }
    }

    /// Lines of logs.
    pub fn logs(title: &'static str, about: &'static str) -> Self {
        Self { unit: "none", ..Self::new(Kind::Logs, title, about) }
    }

    /// Traces.
    pub fn traces(title: &'static str, about: &'static str) -> Self {
        Self { unit: "none", ..Self::new(Kind::Traces, title, about) }
    }

    /// Sets the unit.
    pub fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// Sets width and height.
    pub fn size(self, width: u32, height: u32) -> Self {
        Self { width, height, ..self }
    }

    /// Sets the largest value of the axis.
    pub fn max(self, max: f64) -> Self {
        Self { max: Some(max), ..self }
    }

    /// Values may be negative.
    pub fn signed(self) -> Self {
        Self { signed: true, ..self }
    }

    /// Draws a line at each level.
    pub fn marked(self) -> Self {
        Self { marked: true, ..self }
    }

    /// What stands there when there is no data.
    pub fn none(self, none: &'static str) -> Self {
        Self { none, ..self }
    }

    /// Where a click leads.
    pub fn link(self, title: &'static str, url: &'static str) -> Self {
        Self { link: Some((title, url)), ..self }
    }

    /// Colours from values on, with words.
    pub fn levels(self, levels: &[(f64, &'static str, &'static str)]) -> Self {
        Self {
            levels: levels.iter().map(|&(from, color, word)| Level { from, color, word }).collect(),
            ..self
        }
    }

    fn query(mut self, source: Source, expr: &str, legend: &'static str, instant: bool) -> Self {
        let expr = text(expr);
        self.queries.push(Query { source, expr, legend, instant, quiet: false, exemplars: false });
        self
    }

    /// PromQL over time.
    pub fn q(self, expr: &str, legend: &'static str) -> Self {
        self.query(Source::Prometheus, expr, legend, false)
    }

    /// LogQL over time.
    pub fn lines(self, expr: &str, legend: &'static str) -> Self {
        self.query(Source::Loki, expr, legend, false)
    }

    /// LogQL now.
    pub fn lines_now(self, expr: &str, title: &'static str, unit: &'static str) -> Self {
        self.query(Source::Loki, expr, "", true).last_column(title, unit)
    }

    /// TraceQL.
    pub fn spans(self, expr: &str) -> Self {
        self.query(Source::Tempo, expr, "", true)
    }

    /// The last query has no data while nothing is wrong.
    pub fn quiet(mut self) -> Self {
        if let Some(query) = self.queries.last_mut() {
            query.quiet = true;
        }
        self
    }

    /// The last query is drawn with traces of single requests.
    pub fn exemplars(mut self) -> Self {
        if let Some(query) = self.queries.last_mut() {
            query.exemplars = true;
        }
        self
    }

    /// A column of a label.
    pub fn label(mut self, label: &'static str, title: &'static str) -> Self {
        let field = label.to_owned();
        self.columns.push(Column { field, title, unit: "", levels: Vec::new(), link: None });
        self
    }

    /// A column of a label that leads somewhere.
    pub fn label_link(
        self,
        label: &'static str,
        title: &'static str,
        link: (&'static str, &'static str),
    ) -> Self {
        let mut panel = self.label(label, title);
        if let Some(column) = panel.columns.last_mut() {
            column.link = Some(link);
        }
        panel
    }

    /// A column with a query of its own.
    pub fn value(self, expr: &str, title: &'static str, unit: &'static str) -> Self {
        self.query(Source::Prometheus, expr, "", true).last_column(title, unit)
    }

    fn last_column(mut self, title: &'static str, unit: &'static str) -> Self {
        let field = format!("#{}", self.queries.len().saturating_sub(1));
        self.columns.push(Column { field, title, unit, levels: Vec::new(), link: None });
        self
    }

    /// Colours of the last column, with words.
    pub fn column_levels(mut self, levels: &[(f64, &'static str, &'static str)]) -> Self {
        let levels = levels.iter().map(|&(from, color, word)| Level { from, color, word }).collect();
        if let Some(column) = self.columns.last_mut() {
            column.levels = levels;
        }
        self
    }

    /// Sorts a table, the most at the top.
    pub fn most(self, title: &'static str) -> Self {
        Self { sorted: Some((title, true)), ..self }
    }

    /// Sorts a table, the least at the top.
    pub fn least(self, title: &'static str) -> Self {
        Self { sorted: Some((title, false)), ..self }
    }
}
