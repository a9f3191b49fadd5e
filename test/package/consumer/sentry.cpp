// The same for psycache::sentry; the SDK is not started, so its transaction goes nowhere.

#include <sentry.h>

#include <iostream>
#include <psycache/instrumentation/sentry.hpp>

int main() {
    sentry_transaction_t* const transaction = sentry_transaction_start(
        sentry_transaction_context_new("request", "http.server"), sentry_value_new_null());
    psycache::SentryInstrumentation instrumentation([transaction] { return transaction; });
    auto span = instrumentation.start_cache_flush_span();
    if (!span) {
        std::cerr << "no span was started\n";
        return 1;
    }
    span->record_flush(1);
    span.reset();
    sentry_transaction_finish(transaction);
    std::cout << "a span has come and gone\n";
    return 0;
}
