//! `wasi:http` 0.2 for packs of any language: outgoing requests, as the power `http` judges and sends them. Nothing here decides who
//! may be reached; incoming requests are not offered, because an agent listens on nothing.

use std::future::Future;
use std::sync::Arc;

use ::http::{HeaderName, Request, Response, uri};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks,
    WasiHttpView,
};

use crate::grants::{Grants, Power, not_shared};
use crate::limits::{HTTP_FIELDS, HTTP_WRITE};
use crate::power::http::{self as power, HttpError, Outside, Permitted, RESERVED, Scheme, Step, Times, TlsError};
use crate::state::{Refusal, State};

/// The interface that is the power: whoever imports it asks for `http`.
const HANDLER: &str = "wasi:http/outgoing-handler";
/// Its types, which ask for nothing by themselves.
const TYPES: &str = "wasi:http/types";

/// What an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Import {
    /// asks for the power
    Handler,
    /// only names types
    Types,
}

/// Whether an import is one of ours, in version 0.2.
pub(crate) fn offers(import: &str) -> Option<Import> {
    let (name, version) = import.split_once('@')?;
    match name {
        HANDLER if version.starts_with("0.2.") => Some(Import::Handler),
        TYPES if version.starts_with("0.2.") => Some(Import::Types),
        _ => None,
    }
}

/// Links both interfaces. Those of `wasi:io` and the clocks are linked with the rest of WASI.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

/// One call's part of the power.
pub(crate) struct Http {
    context: WasiHttpCtx,
    sender: Sender,
}

/// What a request of this call goes with.
struct Sender {
    pack: String,
    grants: Arc<Grants>,
    shared_only: bool,
    outside: Arc<Outside>,
    refusal: Refusal,
    concurrent: usize,
    places: Arc<Semaphore>,
}

impl Http {
    pub(crate) fn new(pack: String, grants: Arc<Grants>, shared_only: bool, outside: Arc<Outside>, refusal: Refusal) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(HTTP_FIELDS);
        let concurrent = grants.http.as_ref().map_or(0, |grant| grant.concurrent);
        let places = Arc::new(Semaphore::new(concurrent));
        Http { context, sender: Sender { pack, grants, shared_only, outside, refusal, concurrent, places } }
    }

    pub(crate) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { hooks: &mut self.sender, table, ctx: &mut self.context }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let (http, table) = self.http_and_table();
        http.view(table)
    }
}

type Rest = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sending = Box<dyn Future<Output = Result<(Response<WasiBody>, Rest), Error>> + Send>;

impl Sender {
    /// What can be said at once, in the order of the sentences' use: the call, the grant, the places.
    fn permit(&self, request: &Request<WasiBody>) -> Result<Permitted, HttpError> {
        if self.shared_only {
            return Err(HttpError::Denied(not_shared(Power::Http)));
        }
        let uri = request.uri();
        let scheme = if uri.scheme() == Some(&uri::Scheme::HTTP) { Scheme::Http } else { Scheme::Https };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        Permitted::judge(&self.pack, self.grants.http.as_ref(), scheme, authority, request.method())
    }
}

impl WasiHttpHooks for Sender {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(|name: &HeaderName| {
            // A request's length is the one framing header that a pack may set; it is checked against what is sent.
            let framing = RESERVED.contains(&name.as_str()) && name != ::http::header::CONTENT_LENGTH;
            framing || DEFAULT_FORBIDDEN_HEADERS.contains(name)
        })
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Sending {
        let refusal = self.refusal.clone();
        // Judged now rather than in the task: a pack that never looks at the answer is refused all the same.
        let permitted = self.permit(&request).map_err(|error| wasi(error, &refusal));
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| wasi(HttpError::TooMany(self.concurrent), &refusal));
        let outside = Arc::clone(&self.outside);
        Box::new(async move {
            let (permitted, place) = (permitted?, place?);
            let sent = async {
                let pinned = permitted.pin(&outside).await?;
                pinned.send(request, times(options), &outside, place).await
            };
            let power::Answered { response, connection } = sent.await.map_err(|error| {
                tracing::debug!(reason = %error, "a pack's request failed");
                wasi(error, &refusal)
            })?;
            let response = response.map(|body| body.map_err(move |error| wasi(error, &refusal)).boxed_unsync());
            let rest: Rest = Box::new(async move {
                connection.await;
                Ok(())
            });
            Ok((response, rest))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        HTTP_WRITE
    }
}

fn times(options: Option<RequestOptions>) -> Times {
    let RequestOptions { connect_timeout, first_byte_timeout, between_bytes_timeout } = options.unwrap_or_default();
    Times { connect: connect_timeout, first_byte: first_byte_timeout, between_bytes: between_bytes_timeout }
}

/// What the pack hears. A refusal is remembered for who called it; everything else is the pack's to deal with.
fn wasi(error: HttpError, refusal: &Refusal) -> Error {
    match error {
        HttpError::Denied(sentence) => {
            refusal.remember(sentence);
            Error::HttpRequestDenied
        }
        HttpError::TooMany(_) => Error::ConnectionLimitReached,
        HttpError::NoAddress(_) => Error::DnsError { rcode: None, info_code: None },
        HttpError::Unreachable(..) => Error::ConnectionRefused,
        HttpError::Tls(TlsError::Certificate(_)) => Error::TlsCertificateError,
        HttpError::Tls(TlsError::Failed(_)) => Error::TlsProtocolError,
        HttpError::Timeout(Step::Lookup) => Error::DnsTimeout,
        HttpError::Timeout(Step::Connect) => Error::ConnectionTimeout,
        HttpError::Timeout(Step::Answer | Step::Body) => Error::HttpResponseTimeout,
        HttpError::RequestBody(most) => Error::HttpRequestBodySize(Some(most)),
        HttpError::ResponseBody(most) => Error::HttpResponseBodySize(Some(most)),
        HttpError::ResponseHead => Error::HttpResponseHeaderSectionSize(None),
        HttpError::Broken => Error::ConnectionTerminated,
        HttpError::Protocol(_) => Error::HttpProtocolError,
    }
}

/// A pack's own body failed: it gave up, or wrote less than it had announced.
impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        HttpError::Protocol(format!("the request's body: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outgoing_requests_of_version_two_are_offered() {
        assert_eq!(offers("wasi:http/outgoing-handler@0.2.0"), Some(Import::Handler));
        assert_eq!(offers("wasi:http/types@0.2.12"), Some(Import::Types));
        for import in ["wasi:http/incoming-handler@0.2.0", "wasi:http/types@0.3.0", "wasi:http/types", "http/types@0.2.0"] {
            assert_eq!(offers(import), None, "{import}");
        }
    }

    #[test]
    fn a_refusal_is_remembered_and_nothing_else_is() {
        let refusal = Refusal::default();
        assert!(matches!(wasi(HttpError::TooMany(8), &refusal), Error::ConnectionLimitReached) && refusal.sentence().is_none());
        assert!(matches!(wasi(HttpError::Denied("no".into()), &refusal), Error::HttpRequestDenied));
        assert_eq!(refusal.sentence(), Some("no"));
    }
}
