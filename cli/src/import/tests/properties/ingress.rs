//! <https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#canary> and
//! <https://kubernetes.github.io/ingress-nginx/user-guide/ingress-path-matching/>.

use super::*;

type Place = (Option<&'static str>, &'static str, &'static str, &'static str);

#[derive(Clone, Debug)]
struct Canary {
    place: Place,
    weight: i64,
    header: bool,
}

fn places() -> impl Strategy<Value = Vec<Place>> {
    let place = (
        prop::option::weighted(0.8, prop::sample::select(&HOSTS[..3])),
        prop::sample::select(&["/", "/a", "/a/b", "/ab"][..]),
        prop::sample::select(&["Exact", "Prefix", "ImplementationSpecific"][..]),
        prop::sample::select(&DESTINATIONS[..2]),
    );
    prop::collection::vec(place, 1..7)
}

fn canaries() -> impl Strategy<Value = Vec<Canary>> {
    let canary = (places(), prop::sample::select(&[0_i64, 50, 100][..]), any::<bool>());
    let canary = canary.prop_map(|(places, weight, header)| {
        let (host, path, kind, _) = places[0];
        Canary { place: (host, path, kind, "three"), weight, header }
    });
    prop::collection::vec(canary, 0..3)
}

/// Exact locations first, then the longest prefix: of segments, or for `ImplementationSpecific` of characters.
fn model(places: &[Place], canaries: &[Canary], request: &Request) -> Expected {
    let of = |host: Option<&'static str>| places.iter().filter(move |place| place.0 == host);
    let server = if of(Some(request.host)).next().is_some() { Some(request.host) } else { None };
    let fits = |(_, path, kind, _): &Place| {
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        match *kind {
            "Exact" => (request.path == *path).then_some((true, usize::MAX)),
            "Prefix" => {
                let rest = request.path.strip_prefix(trimmed)?;
                (rest.is_empty() || rest.starts_with('/'))
                    .then_some((rest.is_empty() && !trimmed.is_empty(), trimmed.len() + 1))
            }
            _ => request.path.starts_with(path).then_some((false, path.len())),
        }
    };
    // Of equal locations, the first applies.
    let best = of(server).enumerate().filter_map(|(i, place)| Some((fits(place)?, std::cmp::Reverse(i), place))).max();
    let Some((.., place)) = best else { return Vec::new() };
    let canary =
        canaries.iter().find(|canary| (canary.place.0, canary.place.1, canary.place.2) == (place.0, place.1, place.2));
    match canary {
        Some(canary) if canary.header && request.header == Some("1") => vec![canary.place.3],
        Some(canary) if canary.weight == 100 => vec![canary.place.3],
        Some(canary) if canary.weight > 0 => vec![place.3, canary.place.3],
        _ => vec![place.3],
    }
}

proptest! {
    #[test]
    fn ingresses_decide_as_ingress_nginx_does(places in places(), canaries in canaries(), requests in requests()) {
        let ingress = |name: String, (host, path, kind, service): &Place, annotations: Value| {
            let mut rule = json!({"http": {"paths": [
                {"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}}
            ]}});
            if let Some(host) = host {
                rule["host"] = json!(host);
            }
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name, "annotations": annotations}, "spec": {"rules": [rule]}})
        };
        let mains = places.iter().enumerate().map(|(i, place)| ingress(format!("m{i}"), place, json!({})));
        let others = canaries.iter().enumerate().map(|(i, canary)| {
            let mut annotations = json!({
                "nginx.ingress.kubernetes.io/canary": "true",
                "nginx.ingress.kubernetes.io/canary-weight": canary.weight.to_string(),
            });
            if canary.header {
                annotations["nginx.ingress.kubernetes.io/canary-by-header"] = json!("x-h");
                annotations["nginx.ingress.kubernetes.io/canary-by-header-value"] = json!("1");
            }
            ingress(format!("z{i}"), &canary.place, annotations)
        });
        let documents: Vec<Value> = mains.chain(others).collect();
        agrees(&documents, &requests, &|request| model(&places, &canaries, request))?;
    }
}
