//! The charts, with the real tools: what Helm makes of them, whether Kubernetes would take it, whether epochgate does, and
//! whether it then runs as the manifests say. `UPDATE=1` rewrites what is kept: rendered manifests, schemas, tables.
//!
//! | file | what it shows |
//! |---|---|
//! | [`rendered`] | every value file: as it was last looked at, valid for three Kubernetes, restricted, of one piece |
//! | [`refused`] | every wrong value: refused, by the name of its key |
//! | [`running`] | a guard and a stamp that run as their manifests say |
//! | [`packaged`] | packages, notes, and the library in charts of all shapes |
//! | [`monitoring`] | rules and dashboards, whatever files there are |
//! | [`values`] | schemas and tables say what `values.yaml` and the configuration's own schema do |
//! | [`helm`], [`yaml`], [`pods`], [`node`] | Helm, its output, what is in it, and a host for pods |

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod helm;
mod monitoring;
mod node;
mod packaged;
mod pods;
mod refused;
mod rendered;
mod running;
mod values;
mod yaml;
