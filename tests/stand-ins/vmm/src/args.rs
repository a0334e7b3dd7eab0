//! Firecracker's arguments, with the arguments that the jailer adds.

/// The requested action.
pub(crate) enum Command {
    Run(Box<Args>),
    Version,
    Help,
}

/// The values that change what the stand-in does.
pub(crate) struct Args {
    pub(crate) id: String,
    /// `None` with `--no-api`.
    pub(crate) api_sock: Option<String>,
    pub(crate) config_file: Option<String>,
    pub(crate) log_path: Option<String>,
    pub(crate) metadata: Option<String>,
    pub(crate) module: Option<String>,
    pub(crate) show_level: bool,
    pub(crate) show_log_origin: bool,
    pub(crate) enable_pci: bool,
    pub(crate) http_api_max_payload_size: usize,
}

const VALUES: [&str; 14] = [
    "id",
    "api-sock",
    "config-file",
    "metadata",
    "log-path",
    "level",
    "module",
    "metrics-path",
    "seccomp-filter",
    "http-api-max-payload-size",
    "mmds-size-limit",
    "start-time-us",
    "start-time-cpu-us",
    "parent-cpu-time-us",
];
const SWITCHES: [&str; 6] =
    ["no-api", "no-seccomp", "show-level", "show-log-origin", "boot-timer", "enable-pci"];

/// Parses the arguments by the grammar of the jailer: two items per value, no argument twice.
pub(crate) fn parse(items: impl Iterator<Item = String>) -> Result<Command, String> {
    let items: Vec<String> = items.take_while(|item| item != "--").collect();
    if items.iter().any(|item| item == "--help" || item == "-h") {
        return Ok(Command::Help);
    }
    if items.iter().any(|item| item == "--version") {
        return Ok(Command::Version);
    }
    let mut given: Vec<(&str, &str)> = Vec::new();
    let mut rest = items.iter();
    while let Some(item) = rest.next() {
        let name = item.strip_prefix("--").unwrap_or(item);
        let value = if !item.starts_with("--") {
            None
        } else if SWITCHES.contains(&name) {
            Some("")
        } else if VALUES.contains(&name) {
            let value = rest.next().filter(|value| !value.starts_with("--"));
            let missing =
                || format!("The argument '{name}' requires a value, but none was supplied.");
            Some(value.ok_or_else(missing)?.as_str())
        } else {
            None
        };
        let Some(value) = value else {
            return Err(format!(
                "Found argument '{name}' which wasn't expected, or isn't valid in this context."
            ));
        };
        if given.iter().any(|(earlier, _)| *earlier == name) {
            return Err(format!("The argument '{name}' was provided more than once."));
        }
        given.push((name, value));
    }
    let value = |name: &str| {
        given.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned())
    };
    let no_api = value("no-api").is_some();
    if no_api && value("config-file").is_none() {
        return Err("Argument 'config-file' required, but not found.".to_owned());
    }
    if no_api && value("api-sock").is_some() {
        return Err(
            "Argument 'api-sock' cannot be used together with argument 'no-api'.".to_owned()
        );
    }
    Ok(Command::Run(Box::new(Args {
        id: value("id").unwrap_or_else(|| "anonymous-instance".to_owned()),
        api_sock: (!no_api)
            .then(|| value("api-sock").unwrap_or_else(|| "/run/firecracker.socket".to_owned())),
        config_file: value("config-file"),
        log_path: value("log-path"),
        metadata: value("metadata"),
        module: value("module"),
        show_level: value("show-level").is_some(),
        show_log_origin: value("show-log-origin").is_some(),
        enable_pci: value("enable-pci").is_some(),
        http_api_max_payload_size: value("http-api-max-payload-size")
            .and_then(|size| size.parse().ok())
            .unwrap_or(51_200),
    })))
}
