//! What services that nobody declared anything for are measured by.
//!
//! In: `[slo.defaults] observed`, a percentage or `off`. Out: the objective, if there is one. Invariant: it is only ever
//! observed, so no alert depends on it.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::objective::Objective;

/// The availability that is expected of a workload without an objective of its own; `None` observes none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed(pub Option<Objective>);

impl Default for Observed {
    fn default() -> Self {
        Self("99.9%".parse().ok())
    }
}

impl<'de> Deserialize<'de> for Observed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        match text.trim() {
            "" | "off" => Ok(Self(None)),
            text => match text.parse() {
                Ok(objective) => Ok(Self(Some(objective))),
                Err(error) => Err(serde::de::Error::custom(format!("{error}; \"off\" observes nothing"))),
            },
        }
    }
}

impl Serialize for Observed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(objective) => objective.serialize(serializer),
            None => serializer.serialize_str("off"),
        }
    }
}

impl JsonSchema for Observed {
    fn schema_name() -> Cow<'static, str> {
        "Observed".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": r"^([0-9.]+ *%|off|)$", "examples": ["99.9%", "off"]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Table {
        observed: Observed,
    }

    fn read(text: &str) -> Result<Table, toml::de::Error> {
        toml::from_str(&format!("observed = {text:?}"))
    }

    #[test]
    fn it_is_a_percentage_or_off() {
        let of = |text| read(text).expect(text).observed.0.map(|objective| objective.to_string());
        assert_eq!(of("99.5%"), Some("99.5%".to_owned()));
        assert_eq!((of("off"), of("")), (None, None));
        assert_eq!(read("99.9%").expect("the default"), Table::default());
        assert_eq!(toml::to_string(&read("off").expect("off")).expect("text"), "observed = \"off\"\n");
        let error = read("100%").expect_err("no budget").to_string();
        assert!(
            error.contains("leaves no error budget") && error.contains("\"off\" observes nothing"),
            "{error}"
        );
    }
}
