//! What proves who serves: rotation, a cache, nothing yet; and clients that do not ask for it.

use super::*;
use crate::certificate::decide;
use crate::certificate::{Keeper, Settings};

#[tokio::test]
async fn a_stream_goes_on_through_a_rotation_and_the_next_connection_gets_the_new_certificate() {
    let running = running().await;
    let mut before = running.watch(CHAIN, 0, Some(&token())).await.expect("accepted");
    assert_eq!(next(&mut before).await.height, 100);
    // The next authority was introduced long ago, and signs now.
    let ends = now_ms() / 1000 + decide::AUTHORITY_SECONDS;
    let (introduced, _) =
        bring_up(Some(running.held.clone()), NAME, ends - decide::OVERLAP_SECONDS).expect("introduced");
    let old_bundle = introduced.as_ref().expect("there is one").authorities();
    let mut switched = introduced.clone().expect("there is one");
    let next_signs = switched.next.take().expect("introduced");
    let former = std::mem::replace(&mut switched.signing, next_signs);
    switched.former = vec![former.certificate];
    switched.server = None;
    let (switched, _) = bring_up(Some(switched), NAME, now_ms() / 1000).expect("issued");
    let switched = switched.expect("there is one");
    running
        .served
        .swap(Proof::read(pems(&switched), NAME).expect("a proof"));

    running.facts.send_replace(Arc::new(facts(101)));
    assert_eq!(next(&mut before).await.height, 101, "the stream from before is not cut");
    for bundle in [old_bundle, switched.authorities()] {
        let channel = secure(running.address, &bundle)
            .await
            .expect("both bundles know who signs");
        let mut after = watch_over(channel, CHAIN, 0, Some(&token())).await.expect("accepted");
        assert_eq!(next(&mut after).await.height, 101);
    }
    let first_bundle = running.held.authorities();
    let refused = secure(running.address, &first_bundle)
        .await
        .expect_err("from before the next one was known");
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    running.facts.send_replace(Arc::new(facts(102)));
    assert_eq!(next(&mut before).await.height, 102);
}

#[tokio::test]
async fn an_operator_without_an_api_server_serves_with_the_certificate_of_its_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings {
        namespace: "gonka-system".to_owned(),
        service: "gonka-fleet-signal".to_owned(),
        secret: "gonka-fleet-signal-tls".to_owned(),
        provided: false,
        cache_dir: folder.path().to_owned(),
    };
    let metrics = Arc::new(Metrics::new(&Registry::new()).expect("metrics"));
    let (leader, held) = (Keeper::load(settings.clone(), None, Arc::clone(&metrics)).await, held());
    leader.adopt(pems(&held)).await;
    drop(leader);
    // Nobody answers at that address.
    let nowhere = kube::Config::new("http://127.0.0.1:9".parse().expect("an address"));
    let client = kube::Client::try_from(nowhere).expect("a client");
    let restarted = Arc::new(Keeper::load(settings, Some(client), Arc::clone(&metrics)).await);
    let running = serving(held, restarted.served(), false).await;
    let (keeper, stopped) = (Arc::clone(&restarted), running.stop.clone());
    let mut looking = JoinSet::new();
    looking.spawn(async move { keeper.keep_fresh(stopped).await });
    let mut stream = running.watch(CHAIN, 0, Some(&token())).await.expect("accepted");
    assert_eq!(next(&mut stream).await.height, 100);
    let read = metrics.signal_certificate_failures_total.with_label_values(&["Read"]);
    timeout(Duration::from_secs(8), async {
        while read.get() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it did ask");
    assert!(restarted.served().proof().is_some(), "what is served stays");
}

#[tokio::test]
async fn without_a_certificate_clients_come_again_and_are_served_once_there_is_one() {
    let (held, served) = (held(), Arc::new(Served::default()));
    let running = serving(held, Arc::clone(&served), false).await;
    let bundle = running.held.authorities();
    secure(running.address, &bundle)
        .await
        .expect_err("nothing proves who serves");
    served.swap(Proof::read(pems(&running.held), NAME).expect("a proof"));
    let mut stream = running.watch(CHAIN, 0, Some(&token())).await.expect("accepted");
    assert_eq!(next(&mut stream).await.height, 100);
    assert_eq!((running.handshakes("failed"), running.handshakes("tls")), (1, 1));
}

#[tokio::test]
async fn a_client_without_tls_is_let_in_only_where_that_is_asked_for() {
    for (plaintext, result) in [(false, "plaintext_refused"), (true, "plaintext")] {
        let (held, served) = (held(), Arc::new(Served::default()));
        served.swap(Proof::read(pems(&held), NAME).expect("a proof"));
        let running = serving(held, served, plaintext).await;
        let connected = Endpoint::from_shared(format!("http://{}", running.address))
            .expect("an address")
            .connect()
            .await;
        let heard = match connected {
            Ok(channel) => watch_over(channel, CHAIN, 0, Some(&token())).await.is_ok(),
            Err(_) => false,
        };
        assert_eq!(heard, plaintext);
        assert!(running.handshakes(result) >= 1);
        let mut stream = running
            .watch(CHAIN, 0, Some(&token()))
            .await
            .expect("TLS goes on beside it");
        assert_eq!(next(&mut stream).await.height, 100);
    }
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let running = running().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(running.address).await.expect("connected"));
    }
    let mut stream = running.watch(CHAIN, 0, Some(&token())).await.expect("accepted");
    assert_eq!(next(&mut stream).await.height, 100);
}
