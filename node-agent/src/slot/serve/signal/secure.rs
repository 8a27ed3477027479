//! Observe: a connection to a replica of FleetSignal that has proven its name. Nothing is sent to one that has not, and there is
//! no other kind of connection.

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version,
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

/// A connection must stand within this time, and have proven itself within the same again.
const CONNECT: Duration = Duration::from_secs(3);
/// Largest file of authorities that is read.
const MAX_FILE: u64 = 256 << 10;

/// Why there is no connection. Whatever it is: no token was sent.
#[derive(Debug, Error)]
pub enum Error {
    /// No authorities to read.
    #[error("nobody vouches for FleetSignal: start serve with --signal-ca")]
    NoAuthorities,
    /// Authorities that cannot be read.
    #[error(
        "cannot read {0}: has the ConfigMap slot-trust of this namespace a key of that name? The operator writes it"
    )]
    Read(PathBuf, #[source] io::Error),
    /// Authorities that are none.
    #[error("{0} holds no certificate of an authority as PEM: look at the ConfigMap slot-trust of this namespace")]
    Authorities(PathBuf),
    /// A name that no certificate can have.
    #[error("{0:?} is no name that a certificate can prove: see --signal-server-name")]
    Name(String),
    /// Nobody there.
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// Somebody else, or an authority that is not known here.
    #[error(
        "{address} does not prove to be {name} to the authorities in {authorities}: compare them with ca.crt in the operator's Secret of FleetSignal"
    )]
    Unproven {
        /// Where it was.
        address: SocketAddr,
        /// Who was wanted.
        name: String,
        /// Who was believed.
        authorities: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be spoken here.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// Not FleetSignal.
    #[error("{0} does not speak HTTP/2")]
    Http(SocketAddr, #[source] tonic::transport::Error),
}

/// Connects. The authorities are read anew each time: they change while a pod runs.
pub async fn connect(address: SocketAddr, name: &str, authorities: Option<&Path>) -> Result<Channel, Error> {
    let path = authorities.ok_or(Error::NoAuthorities)?;
    let config = config(path)?;
    let asked = ServerName::try_from(name.to_owned()).map_err(|_| Error::Name(name.to_owned()))?;
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let stream = timeout(CONNECT, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(late()))
        .map_err(|source| Error::Connect(address, source))?;
    stream
        .set_nodelay(true)
        .map_err(|source| Error::Connect(address, source))?;
    let secure = TlsConnector::from(Arc::new(config)).connect(asked, stream);
    let stream = timeout(CONNECT, secure)
        .await
        .unwrap_or_else(|_| Err(late()))
        .map_err(|source| Error::Unproven {
            address,
            name: name.to_owned(),
            authorities: path.to_owned(),
            source,
        })?;
    speak(stream, address, name).await
}

/// HTTP/2 over this one connection: a channel that made another would not have proven anything.
async fn speak(stream: TlsStream<TcpStream>, address: SocketAddr, name: &str) -> Result<Channel, Error> {
    let host = if name.contains(':') {
        format!("[{name}]")
    } else {
        name.to_owned()
    };
    let origin = format!("https://{host}")
        .parse()
        .map_err(|_| Error::Name(name.to_owned()))?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    // TLS is spoken already, so that the channel itself must not; requests name who was asked all the same.
    Endpoint::from_shared(format!("http://{address}"))
        .map_err(|source| Error::Http(address, source))?
        .origin(origin)
        .connect_with_connector(connector)
        .await
        .map_err(|source| Error::Http(address, source))
}

fn config(path: &Path) -> Result<ClientConfig, Error> {
    let read = |source| Error::Read(path.to_owned(), source);
    if std::fs::metadata(path).map_err(read)?.len() > MAX_FILE {
        return Err(read(io::ErrorKind::FileTooLarge.into()));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&std::fs::read(path).map_err(read)?) {
        let none = || Error::Authorities(path.to_owned());
        roots.add(certificate.map_err(|_| none())?).map_err(|_| none())?;
    }
    if roots.is_empty() {
        return Err(Error::Authorities(path.to_owned()));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(Error::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(content: Option<&str>) -> Error {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signal-ca.pem");
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        config(&path).unwrap_err()
    }

    #[test]
    fn authorities_that_are_missing_or_none_say_where_to_look() {
        assert!(matches!(refused(None), Error::Read(..)));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for content in ["", "nothing", broken] {
            assert!(matches!(refused(Some(content)), Error::Authorities(_)), "{content:?}");
            assert!(refused(Some(content)).to_string().contains("slot-trust"));
        }
    }

    #[tokio::test]
    async fn without_authorities_nobody_is_asked() {
        let nobody = connect(([127, 0, 0, 1], 9).into(), "a.b.svc", None).await;
        assert!(matches!(nobody, Err(Error::NoAuthorities)));
    }
}
