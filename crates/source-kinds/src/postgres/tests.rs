//! Tests with a server of PostgreSQL, which they start once.

mod errors;
mod logins;
mod reads;
mod server;

use self::server::TestServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_source_reads_from_a_real_server() {
    let server = TestServer::start().await;
    reads::all_types_round_trip(&server).await;
    reads::read_does_not_see_later_changes(&server).await;
    reads::read_ends_when_its_receiver_is_closed(&server).await;
    reads::query_without_rows_sends_nothing(&server).await;
    reads::listing_names_version_and_database(&server).await;
    errors::query_errors_have_code_and_position(&server).await;
    errors::rows_that_do_not_fit_name_the_column(&server).await;
    errors::columns_that_do_not_fit_fail_the_listing(&server).await;
    errors::long_queries_end_at_the_timeout(&server).await;
    errors::ended_connection_is_unreadable(&server).await;
    errors::rows_beyond_the_limit_are_a_mismatch(&server).await;
    logins::login_errors_have_server_and_remedy(&server).await;
    logins::passwords_are_sent_to_their_servers_only(&server).await;
    logins::sources_call_permitted_hosts_only(&server).await;
    logins::cleartext_logins_need_a_verified_server(&server).await;
    reads::million_rows_are_read(&server).await;
    // Turns TLS off.
    logins::connections_are_encrypted_as_configured(&server).await;
}
