//! Signs JSON web tokens, and provides the key set with which a proxy verifies them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

/// Signs tokens with ES256.
#[derive(Debug)]
pub struct TokenSigner {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl TokenSigner {
    /// The issuer of the tokens.
    pub const ISSUER: &str = "https://issuer.example.com";

    /// Generates a new key.
    pub fn new() -> Result<Self> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| anyhow!("there is no randomness for a key"))?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
            .map_err(|why| anyhow!("the key is of no use: {why}"))?;
        Ok(TokenSigner { key, random })
    }

    /// The key set in JSON (JWKS).
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.key.public_key().as_ref();
        let half = |from: usize, to: usize| URL_SAFE_NO_PAD.encode(point.get(from..to).unwrap_or_default());
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "tests", "x": half(1, 33), "y": half(33, 65)}]})
    }

    /// A provider with the key set, as configuration of Envoy's JWT filter.
    pub fn local_jwks(&self) -> Value {
        json!({"inline_string": self.jwks().to_string()})
    }

    /// A token with these claims, valid for an hour, as the value of `authorization`.
    pub fn bearer(&self, claims: &Value) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut all = json!({"iss": Self::ISSUER, "iat": now, "exp": now + 3600});
        if let (Some(all), Some(claims)) = (all.as_object_mut(), claims.as_object()) {
            all.extend(claims.clone());
        }
        let header = json!({"typ": "JWT", "alg": "ES256", "kid": "tests"});
        let unsigned = [header, all].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = self.key.sign(&self.random, unsigned.as_bytes()).map_err(|_| anyhow!("cannot sign"))?;
        Ok(format!("Bearer {unsigned}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
