//! `epochgate schema`: the configuration's JSON Schema.

use clap::Args;

use super::exit::Exit;
use crate::config;

/// Prints the JSON Schema of the configuration file
#[derive(Args, Debug)]
#[command(after_help = "\
Example, for an editor that speaks YAML:
  epochgate schema > epochgate.schema.json
  and as the first line of epochgate.yaml:  # yaml-language-server: $schema=epochgate.schema.json

Next:
  epochgate check -c epochgate.yaml   what a schema cannot say: does it make sense, is it reachable?")]
pub struct SchemaArgs {}

/// Prints it.
pub fn run(_: SchemaArgs) -> Exit {
    let schema = serde_json::to_string_pretty(&config::schema()).expect("a schema is JSON");
    super::print(&format!("{schema}\n"))
}
