//! Describes how egress interpreted a request.

use super::authority::UriHost;
use super::facts::{DestinationPort, Facts};
use super::form::Form;
use super::index::Destinations;
use super::report::host_text;
use crate::environment::Environment;
use crate::explain::{DestinationNote, Note};

/// Notes the destination.
pub(super) fn note_destination<E: Environment>(
    form: &Form<'_>,
    default_port: DestinationPort,
    facts: &mut Facts<'_, E>,
) {
    if !facts.environment.is_tracing() {
        return;
    }
    let port_from = match (form.authority.port, default_port) {
        (Some(_), _) => "authority",
        (None, DestinationPort::Known(_)) => "defaultPort",
        (None, DestinationPort::OfConnection) => "scheme",
    };
    let destination = DestinationNote {
        host: host_text(&form.authority.host),
        port: facts.port(),
        port_from,
        method: String::from_utf8_lossy(form.method).into_owned(),
        is_tunnel: form.is_tunnel,
        has_upgrade: form.has_upgrade,
    };
    facts.environment.note(Note::Destination(destination));
}

/// Notes the entries of `deny` that cover the destination.
pub(super) fn note_denied(
    deny: &Destinations,
    host: &UriHost<'_>,
    port: Option<u16>,
    environment: &mut impl Environment,
) {
    if !environment.is_tracing() {
        return;
    }
    let mut entries = Vec::new();
    deny.each_denying(host, port, |entry| entries.push(entry.rule as usize));
    entries.sort_unstable();
    entries.dedup();
    environment.note(Note::Denied(entries));
}
