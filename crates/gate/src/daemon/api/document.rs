//! What the interface offers, as an OpenAPI document: made from the code that does it.

use axum::Json;
use utoipa::OpenApi;

use super::{buckets, device, events, files, health, mounts, past, turns};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Gate",
        description = "Mounts that a daemon keeps, who holds and waits in them, and its buckets. At the socket `http.sock` in its \
                       state directory, and at a port of the loopback address to who shows a token.",
    ),
    paths(
        mounts::all, mounts::one, mounts::add, mounts::set, mounts::remove, mounts::start,
        mounts::stop, mounts::unmount_all, events::events, turns::locks, turns::holds, turns::sessions,
        turns::status, turns::break_lock, turns::recall, health::livez, health::readyz,
        health::identity, health::version, device::state, device::make, device::unlock,
        device::change_passphrase, buckets::all, buckets::one, buckets::create, buckets::rename,
        buckets::delete, buckets::check, buckets::free, files::list, files::stat, files::cat, files::put, files::mkdir,
        files::rename, files::remove, files::import, files::export,
        past::history, past::diff, past::restore, past::undo,
    ),
    security(("token" = [])),
    modifiers(&Tokens),
)]
struct Document;

/// That a token opens the door, and what is said to who has none.
struct Tokens;

impl utoipa::Modify for Tokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        use utoipa::openapi::{Content, Ref, ResponseBuilder};

        let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", token);
        let denials = [("401", "There is no token, or a wrong one"), ("403", "It is not for that")];
        for item in document.paths.paths.values_mut() {
            let methods =
                [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
            for operation in methods.into_iter().flatten() {
                for (status, why) in denials {
                    let content = Content::new(Some(Ref::from_schema_name("Refused")));
                    let response = ResponseBuilder::new().description(why);
                    let response = response.content("application/json", content).build();
                    operation.responses.responses.insert(status.to_owned(), response.into());
                }
            }
        }
    }
}

/// The document itself.
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.json");

    #[test]
    fn what_is_documented_is_what_is_offered() {
        let text = Document::openapi().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("GATE_WRITE_API").is_some() {
            std::fs::write(FILE, &text).unwrap();
        }
        let known = std::fs::read_to_string(FILE).unwrap_or_default();
        let hint = "GATE_WRITE_API=1 cargo nextest run -p gate what_is_documented writes it anew";
        assert!(known == text, "docs/api.json is not of this code: {hint}");
    }
}
