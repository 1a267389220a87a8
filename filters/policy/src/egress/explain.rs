//! What egress read in a request, in words.

use super::authority::Host;
use super::facts::{Facts, Port};
use super::form::Form;
use super::index::Destinations;
use super::report::host_text;
use crate::environment::Environment;
use crate::explain::{Destination, Note};

/// The note on the destination.
pub(super) fn destination<E: Environment>(form: &Form<'_>, default_port: Port, facts: &mut Facts<'_, E>) -> Note {
    let port_from = match (form.authority.port, default_port) {
        (Some(_), _) => "authority",
        (None, Port::Known(_)) => "defaultPort",
        (None, Port::OfConnection) => "scheme",
    };
    Note::Destination(Destination {
        host: host_text(&form.authority.host),
        port: facts.port(),
        port_from,
        method: String::from_utf8_lossy(form.method).into_owned(),
        is_tunnel: form.is_tunnel,
        has_upgrade: form.has_upgrade,
    })
}

/// The note on the entries of `deny` that cover the destination.
pub(super) fn denied(deny: &Destinations, host: &Host<'_>, port: Option<u16>) -> Note {
    let mut entries = Vec::new();
    deny.each_denying(host, port, |entry| entries.push(entry.rule as usize));
    entries.sort_unstable();
    entries.dedup();
    Note::Denied(entries)
}
