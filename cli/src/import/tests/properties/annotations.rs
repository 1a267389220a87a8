//! <https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/>: limits, allowlists,
//! redirects and affinity of Ingresses that share hosts. If two define the same location, the older one applies, or
//! with the same age the first by name.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Annotation {
    Nothing,
    Rate(u32, u32),
    RateExceptSome(u32),
    Allowlist,
    Redirect(&'static str),
    Https,
    Canary { is_sticky: bool },
}

#[derive(Clone, Debug)]
struct Ingress {
    host: &'static str,
    path: &'static str,
    annotation: Annotation,
    to: &'static str,
    created: u8,
}

fn ingresses() -> impl Strategy<Value = Vec<Ingress>> {
    let annotation = prop_oneof![
        2 => Just(Annotation::Nothing),
        3 => (1..3_u32, 1..3_u32).prop_map(|(rate, multiplier)| Annotation::Rate(rate, multiplier)),
        1 => (1..3_u32).prop_map(Annotation::RateExceptSome),
        1 => Just(Annotation::Allowlist),
        1 => prop::sample::select(&["https://n.test$request_uri", "https://n.test/y", "/relative"][..]).prop_map(Annotation::Redirect),
        1 => Just(Annotation::Https),
        1 => any::<bool>().prop_map(|is_sticky| Annotation::Canary { is_sticky }),
    ];
    let ingress = (
        prop::sample::select(&HOSTS[..2]),
        prop::sample::select(&["/", "/a", "/b"][..]),
        annotation,
        prop::sample::select(&DESTINATIONS[..3]),
        0..2_u8,
    );
    let ingress =
        ingress.prop_map(|(host, path, annotation, to, created)| Ingress { host, path, annotation, to, created });
    prop::collection::vec(ingress, 1..5)
}

fn documents(all: &[Ingress]) -> Vec<Value> {
    let one = |name: String, ingress: &Ingress, to: &str, annotations: Value| {
        let mut json = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "annotations": annotations, "creationTimestamp": format!("2026-01-0{}T00:00:00Z", ingress.created + 1)},
            "spec": {"ingressClassName": "nginx", "rules": [{"host": ingress.host, "http": {"paths": [
                {"path": ingress.path, "pathType": "Prefix", "backend": {"service": {"name": to, "port": {"number": 80}}}}]}}]}});
        if ingress.annotation == Annotation::Https {
            json["spec"]["tls"] = json!([{"hosts": [ingress.host]}]);
        }
        json
    };
    let mut documents = Vec::new();
    for (i, ingress) in all.iter().enumerate() {
        let name = |short: &str| format!("nginx.ingress.kubernetes.io/{short}");
        let annotations = match ingress.annotation {
            Annotation::Rate(rate, multiplier) => {
                json!({name("limit-rpm"): rate.to_string(), name("limit-burst-multiplier"): multiplier.to_string()})
            }
            Annotation::RateExceptSome(rate) => {
                json!({name("limit-rps"): rate.to_string(), name("limit-whitelist"): "10.0.0.0/8"})
            }
            Annotation::Allowlist => json!({name("whitelist-source-range"): "10.0.0.0/8"}),
            Annotation::Redirect(url) => json!({name("permanent-redirect"): url}),
            Annotation::Canary { is_sticky: true } => {
                json!({name("affinity"): "cookie", name("session-cookie-name"): "sid"})
            }
            _ => json!({}),
        };
        documents.push(one(format!("i{i}"), ingress, ingress.to, annotations));
        // A canary belongs to the oldest Ingress with its location.
        if let Annotation::Canary { .. } = ingress.annotation
            && decides(all, i)
        {
            let annotations = json!({name("canary"): "true", name("canary-weight"): "50"});
            documents.push(one(format!("z{i}"), ingress, "four", annotations));
        }
    }
    documents
}

/// Whether no older Ingress has the location.
fn decides(all: &[Ingress], i: usize) -> bool {
    taken(all, &Request { host: all[i].host, path: all[i].path, method: "GET", header: None }) == Some(i)
}

/// The Ingress whose location takes a request.
fn taken(all: &[Ingress], request: &Request) -> Option<usize> {
    let below = |path: &str| {
        request
            .path
            .strip_prefix(path.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let fits = all.iter().enumerate().filter(|(_, ingress)| ingress.host == request.host && below(ingress.path));
    fits.min_by_key(|(i, ingress)| (std::cmp::Reverse(ingress.path.len()), ingress.created, *i)).map(|(i, _)| i)
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn annotations_do_what_nginx_does_or_the_request_is_left_alone(all in ingresses(), requests in requests()) {
        let imported = imported(&documents(&all));
        let mut world = World::new(Timestamp(0), 0);
        let mut passed: BTreeMap<usize, u32> = BTreeMap::new();
        let mut served: BTreeMap<usize, String> = BTreeMap::new();
        for request in &requests {
            for scheme in ["http", "https"] {
                let json = json!({"method": request.method, "scheme": scheme, "authority": request.host, "path": request.path,
                    "sourceAddress": "192.0.2.1", "headers": [["x-forwarded-proto", scheme], ["cookie", "sid=user"]]});
                let wire: WireRequest = serde_json::from_value(json).unwrap();
                let decision = wire.decide(&imported.policy, &mut world);
                let lead = decision.route.as_ref().filter(|route| *route != UNROUTED).and_then(|route| imported.leads.get(route));
                let lead = lead.and_then(|to| to.split(' ').next());
                let text = || format!("{scheme} {request:?}\n{}", imported.text);
                let Some(i) = taken(&all, request) else {
                    prop_assert!(decision.status.is_none() && lead.is_none(), "{}", text());
                    continue;
                };
                let redirect = |to: String, status: u16| (Some(status), Some(to));
                let got = (decision.status, decision.response_headers.first().map(|pair| pair.1.clone()).filter(|_| decision.status.is_some()));
                match all[i].annotation {
                    Annotation::Nothing | Annotation::RateExceptSome(_) => prop_assert_eq!((got, lead), ((None, None), Some(all[i].to)), "{}", text()),
                    Annotation::Rate(rate, multiplier) => {
                        let count = passed.entry(i).or_default();
                        let is_spent = *count > rate * multiplier;
                        prop_assert_eq!(decision.status, is_spent.then_some(503), "{}", text());
                        prop_assert!(is_spent || lead == Some(all[i].to), "{}", text());
                        *count += 1;
                    }
                    Annotation::Allowlist => prop_assert!(decision.status.is_none() && lead.is_none() && !imported.is_complete, "{}", text()),
                    Annotation::Redirect("/relative") => prop_assert!(decision.status.is_none() && lead.is_none() && !imported.is_complete, "{}", text()),
                    Annotation::Redirect(url) => prop_assert_eq!(got, redirect(url.replace("$request_uri", request.path), 301), "{}", text()),
                    Annotation::Https if scheme == "http" => {
                        prop_assert_eq!(got, redirect(format!("https://{}{}", request.host, request.path), 308), "{}", text());
                    }
                    Annotation::Https => prop_assert_eq!((got, lead), ((None, None), Some(all[i].to)), "{}", text()),
                    Annotation::Canary { is_sticky } => {
                        prop_assert!(lead == Some(all[i].to) || lead == Some("four"), "{}", text());
                        let before = served.entry(i).or_insert_with(|| lead.unwrap_or_default().to_owned());
                        prop_assert!(!is_sticky || lead == Some(before), "{}", text());
                    }
                }
            }
        }
        let loses = |ingress: &Ingress| matches!(ingress.annotation, Annotation::Allowlist | Annotation::RateExceptSome(_) | Annotation::Redirect("/relative"));
        if !all.iter().any(loses) {
            prop_assert!(imported.is_complete, "{}", imported.text);
        }
    }
}
