//! In which pod or host files and processes are, as the environment tells it.
//!
//! In: environment variables: the downward API's `POD_NAME`, `POD_NAMESPACE`, and OpenTelemetry's `OTEL_SERVICE_NAME`
//! and `OTEL_RESOURCE_ATTRIBUTES`. Out: [`Around`]. Invariant: what cannot be read is left out; a log is never held up
//! for it.

/// What the environment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Around {
    /// Namespace of the pod; empty outside Kubernetes.
    pub namespace: String,
    /// Name of the pod; empty outside Kubernetes.
    pub pod: String,
    /// OpenTelemetry `service.name`.
    pub service: Option<String>,
    /// OpenTelemetry `service.version`.
    pub version: Option<String>,
    /// OpenTelemetry `deployment.environment.name`.
    pub environment: Option<String>,
    /// Further resource attributes, sorted by name.
    pub attributes: Vec<(String, String)>,
}

impl Around {
    /// Reads the variables that `get` gives.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let mut attributes = resource_attributes(&get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
        let mut take = |name: &str| {
            let at = attributes.iter().position(|(key, _)| key == name)?;
            Some(attributes.remove(at).1)
        };
        let named = take("service.name");
        let version = take("service.version");
        let environment = take("deployment.environment.name");
        let environment = take("deployment.environment").filter(|_| environment.is_none()).or(environment);
        let namespace = take("k8s.namespace.name");
        let pod = take("k8s.pod.name");
        Self {
            namespace: get("POD_NAMESPACE").or(namespace).unwrap_or_default(),
            pod: get("POD_NAME").or(pod).unwrap_or_default(),
            service: get("OTEL_SERVICE_NAME").or(named),
            version,
            environment,
            attributes,
        }
    }

    /// What the process's own environment says.
    pub fn of_process() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }
}

/// `key=value,key=value`, percent-encoded; the last of two with the same key counts.
/// Source: OpenTelemetry, "Resource SDK", specifying resource information via an environment variable.
fn resource_attributes(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for pair in text.split(',') {
        let Some((key, value)) = pair.split_once('=') else { continue };
        let (key, value) = (decode(key.trim()), decode(value.trim()));
        if key.is_empty() || value.is_empty() {
            continue;
        }
        found.retain(|(known, _)| *known != key);
        found.push((key, value));
    }
    found.sort();
    found
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_pod_service_and_attributes() {
        let get = |name: &str| {
            let value = match name {
                "POD_NAME" => "checkout-1",
                "POD_NAMESPACE" => "shop",
                "OTEL_SERVICE_NAME" => "till",
                "OTEL_RESOURCE_ATTRIBUTES" => {
                    "service.name=other,service.version=1%2C2,team=a b,=x,broken,deployment.environment=prod,team=core%zz"
                }
                _ => return None,
            };
            Some(value.to_owned())
        };
        let around = Around::read(get);
        assert_eq!((around.namespace.as_str(), around.pod.as_str()), ("shop", "checkout-1"));
        assert_eq!(around.service.as_deref(), Some("till"));
        assert_eq!(around.version.as_deref(), Some("1,2"));
        assert_eq!(around.environment.as_deref(), Some("prod"));
        assert_eq!(around.attributes, [("team".to_owned(), "core%zz".to_owned())]);
    }

    #[test]
    fn without_variables_nothing_is_known() {
        assert_eq!(Around::read(|_| None), Around::default());
    }
}
