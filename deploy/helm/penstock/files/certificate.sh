# Makes a certificate authority that signs one certificate, and does not keep its key. The API server also keeps trusting the previous
# authority, so that no request is refused while Pods still use the old certificate.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$WEBHOOK" -keyout ca.key -out ca.crt
# The name of the Service is not the common name, which can have 64 characters only.
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=webhook -keyout tls.key -out tls.csr
printf 'subjectAltName=DNS:%s,DNS:%s.cluster.local\n' "$SERVICE" "$SERVICE" >extensions
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile extensions -out tls.crt
old=$(kubectl -n "$NAMESPACE" get secret "$SECRET" -o 'jsonpath={.data.ca\.crt}' 2>/dev/null || true)
cp ca.crt bundle.crt
if [ -n "$old" ]; then printf %s "$old" | base64 -d >>bundle.crt; fi
bundle=$(base64 <bundle.crt | tr -d '\n')
patch=$(kubectl get validatingwebhookconfiguration "$WEBHOOK" -o 'jsonpath={range .webhooks[*]}{.name}{"\n"}{end}' |
    sed "s|.*|{\"name\":\"&\",\"clientConfig\":{\"caBundle\":\"$bundle\"}}|" | paste -sd, -)
kubectl patch validatingwebhookconfiguration "$WEBHOOK" --type strategic --patch "{\"webhooks\":[$patch]}"
kubectl -n "$NAMESPACE" create secret generic "$SECRET" --type kubernetes.io/tls --from-file=tls.crt --from-file=tls.key \
    --from-file=ca.crt --dry-run=client -o yaml | kubectl apply --server-side --force-conflicts -f -
