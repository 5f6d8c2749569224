//! The OpenAPI description: the paths here, the types from `wire`.
//!
//! The built description is committed (`openapi.json` beside this crate's `Cargo.toml`); a test compares the two.

use utoipa::OpenApi;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, InfoBuilder, Ref, Required, ResponseBuilder};

use crate::wire;

/// All types that a body names.
#[derive(OpenApi)]
#[openapi(components(schemas(
    wire::chat::ChatRequest,
    wire::chat::ChatCompletion,
    wire::chat::ChatChunk,
    wire::completions::CompletionRequest,
    wire::completions::Completion,
    wire::embeddings::EmbeddingRequest,
    wire::embeddings::Embeddings,
    wire::messages::MessagesRequest,
    wire::messages::MessageAnswer,
    wire::messages::CountedTokens,
    wire::responses::ResponsesRequest,
    wire::info::ModelList,
    wire::info::ModelObject,
    wire::info::Info,
    wire::info::TokenizeRequest,
    wire::info::Tokenized,
    wire::info::Health,
    wire::chats::ChatRows,
    wire::chats::ChatRow,
    wire::chats::StoredChat,
    wire::chats::PutChat,
    wire::chats::PatchChat,
    wire::chats::UsageReport,
    wire::chats::Balance,
    wire::error::ErrorBody,
)))]
struct Types;

/// A path: method, path, what it does, the type of its body, the type of its answer.
type Row = (HttpMethod, &'static str, &'static str, Option<&'static str>, Option<&'static str>);

const PATHS: [Row; 25] = [
    (HttpMethod::Post, "/v1/chat/completions", "Answer a conversation", Some("ChatRequest"), Some("ChatCompletion")),
    (HttpMethod::Post, "/v1/completions", "Go on with a text", Some("CompletionRequest"), Some("Completion")),
    (
        HttpMethod::Post,
        "/beta/chat/completions",
        "The same, DeepSeek's path",
        Some("ChatRequest"),
        Some("ChatCompletion"),
    ),
    (HttpMethod::Post, "/beta/completions", "Fill in a gap", Some("CompletionRequest"), Some("Completion")),
    (HttpMethod::Post, "/v1/embeddings", "Make vectors of texts", Some("EmbeddingRequest"), Some("Embeddings")),
    (HttpMethod::Post, "/v1/messages", "Answer, as Anthropic does", Some("MessagesRequest"), Some("MessageAnswer")),
    (HttpMethod::Post, "/v1/messages/count_tokens", "Count tokens", Some("MessagesRequest"), Some("CountedTokens")),
    (HttpMethod::Post, "/v1/responses", "Answer, as OpenAI's responses do", Some("ResponsesRequest"), None),
    (HttpMethod::Get, "/v1/responses/{id}", "A kept response", None, None),
    (HttpMethod::Delete, "/v1/responses/{id}", "Delete a kept response", None, None),
    (HttpMethod::Get, "/v1/responses/{id}/input_items", "The conversation that it answers", None, None),
    (HttpMethod::Get, "/v1/models", "The models", None, Some("ModelList")),
    (HttpMethod::Get, "/v1/models/{id}", "A model", None, Some("ModelObject")),
    (HttpMethod::Get, "/user/balance", "What the key may spend", None, Some("Balance")),
    (HttpMethod::Get, "/api/info", "What the server is and can", None, Some("Info")),
    (HttpMethod::Get, "/api/usage", "What the key has used", None, Some("UsageReport")),
    (HttpMethod::Post, "/api/tokenize", "Tokens of a text", Some("TokenizeRequest"), Some("Tokenized")),
    (HttpMethod::Get, "/api/chats", "The stored chats", None, Some("ChatRows")),
    (HttpMethod::Delete, "/api/chats", "Delete all chats", None, None),
    (HttpMethod::Get, "/api/chats/export", "All chats as one file", None, None),
    (HttpMethod::Get, "/api/chats/{id}", "A chat", None, Some("StoredChat")),
    (HttpMethod::Put, "/api/chats/{id}", "Store a chat", Some("PutChat"), Some("ChatRow")),
    (HttpMethod::Patch, "/api/chats/{id}", "Rename a chat", Some("PatchChat"), Some("ChatRow")),
    (HttpMethod::Delete, "/api/chats/{id}", "Delete a chat", None, None),
    (HttpMethod::Get, "/health", "Whether requests are taken", None, Some("Health")),
];

/// The description as JSON.
///
/// # Errors
/// If a type has no JSON form, which a test rules out.
pub fn json() -> Result<String, serde_json::Error> {
    let mut api = Types::openapi();
    let about = "DeepSeek's, OpenAI's and Anthropic's protocols on your own machine.";
    api.info = InfoBuilder::new().title("fathom").version(env!("CARGO_PKG_VERSION")).description(Some(about)).build();
    let body = |name: &str| ContentBuilder::new().schema(Some(Ref::from_schema_name(name))).build();
    for (method, path, summary, request, answer) in PATHS {
        let mut operation = OperationBuilder::new().summary(Some(summary));
        if let Some(request) = request {
            let required = RequestBodyBuilder::new().content("application/json", body(request));
            operation = operation.request_body(Some(required.required(Some(Required::True)).build()));
        }
        let mut done = ResponseBuilder::new().description("Done");
        if let Some(answer) = answer {
            done = done.content("application/json", body(answer));
        }
        let failed = ResponseBuilder::new().description("What is wrong").content("application/json", body("ErrorBody"));
        operation = operation.response("200", done.build()).response("default", failed.build());
        let item = PathItem::new(method, operation.build());
        match api.paths.paths.get_mut(path) {
            Some(known) => known.merge_operations(item),
            None => _ = api.paths.paths.insert(path.to_string(), item),
        }
    }
    if let Some(components) = &mut api.components {
        let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        components.add_security_scheme("key", bearer);
    }
    Ok(api.to_pretty_json()? + "\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_description_is_the_built_one() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        let built = super::json().unwrap();
        if std::env::var_os("FATHOM_UPDATE").is_some() {
            std::fs::write(&file, &built).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == built, "openapi.json is not what is built now; FATHOM_UPDATE=1 writes it again");
    }
}
