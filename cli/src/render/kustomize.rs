//! Renders a kustomize base: plain Envoy as a Deployment. The bootstrap with the policy is a generated ConfigMap whose
//! name contains a hash: a changed policy rolls the Deployment, and a bad one never replaces running pods.

use super::envoy;
use super::plan::Plan;
use super::text::RenderedFile;
use crate::yaml_text::scalar;

pub fn base(plan: &Plan<'_>) -> Vec<RenderedFile> {
    let name = &plan.args.name;
    let kustomization = format!(
        "# The manifests of `penstock render --for kustomize`.\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
         namespace: {}\nresources:\n- deployment.yaml\n- service.yaml\nconfigMapGenerator:\n\
         # A new policy is a new name, so the Deployment rolls.\n- name: {name}\n  files: [envoy.yaml]\n",
        plan.namespace,
    );
    let image = |image: &str, digest: &Option<String>| match digest {
        Some(digest) => format!("{}@sha256:{digest}", image.trim_start_matches("oci://")),
        None => image.trim_start_matches("oci://").to_owned(),
    };
    let mut modules = Vec::new();
    if plan.ingress.is_some() {
        modules.push(("suite", image(&plan.image, &plan.args.sha256)));
    }
    if plan.egress.is_some() {
        modules.push(("egress-allowlist", image(&plan.egress_image, &plan.egress_sha256)));
    }
    let mounts: String = modules
        .iter()
        .map(|(module, _)| format!("        - {{name: {module}, mountPath: /etc/penstock/{module}}}\n"))
        .collect();
    let volumes: String = modules
        .iter()
        .map(|(module, image)| {
            format!(
                "      - name: {module}\n        image: {{reference: {}, pullPolicy: IfNotPresent}}\n",
                scalar(image)
            )
        })
        .collect();
    let mut ports = String::new();
    let mut service_ports = String::new();
    for (is_there, port, name) in
        [(plan.ingress.is_some(), envoy::INGRESS_PORT, "http"), (plan.egress.is_some(), envoy::EGRESS_PORT, "egress")]
    {
        if is_there {
            ports += &format!("        - {{name: {name}, containerPort: {port}}}\n");
            service_ports += &format!("  - {{name: {name}, port: {port}}}\n");
        }
    }
    let deployment = format!(
        "# Envoy with the policy. The modules are image volumes (Kubernetes 1.35, or the feature gate ImageVolume).\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  labels: {{app: {name}}}\nspec:\n  replicas: 2\n  \
         selector:\n    matchLabels: {{app: {name}}}\n  template:\n    metadata:\n      labels: {{app: {name}}}\n    spec:\n      \
         containers:\n      - name: envoy\n        image: envoyproxy/envoy:v1.40.0\n        args: [-c, /etc/envoy/penstock/envoy.yaml]\n        \
         ports:\n{ports}        readinessProbe:\n          tcpSocket: {{port: {}}}\n        securityContext:\n          \
         allowPrivilegeEscalation: false\n          runAsNonRoot: true\n          runAsUser: 101\n          capabilities: {{drop: [ALL]}}\n        \
         volumeMounts:\n        - {{name: bootstrap, mountPath: /etc/envoy/penstock}}\n{mounts}      volumes:\n      - name: bootstrap\n        \
         configMap: {{name: {name}}}\n{volumes}",
        if plan.ingress.is_some() { envoy::INGRESS_PORT } else { envoy::EGRESS_PORT },
    );
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  labels: {{app: {name}}}\nspec:\n  selector: {{app: {name}}}\n  \
         ports:\n{service_ports}"
    );
    vec![
        RenderedFile { file: "kustomization.yaml", text: kustomization },
        RenderedFile { file: "deployment.yaml", text: deployment },
        RenderedFile { file: "service.yaml", text: service },
        RenderedFile { file: "envoy.yaml", text: envoy::bootstrap(plan) },
    ]
}
