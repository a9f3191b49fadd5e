#pragma once

#include <memory>
#include <utility>

#include "batching/call.hpp"
#include "cache/breaker.hpp"
#include "failure.hpp"
#include "observers.hpp"

namespace psycache::detail {

/// A get, put or remove of one key between its beginning and its end: all that is known of it,
/// however its answer is waited for.
template <class Span>
struct LoneCall {
    LoneCall(Spans<Span> opened, Breaker::Pass admitted)
        : spans(std::move(opened)), pass(std::move(admitted)) {}

    Spans<Span> spans;
    Breaker::Pass pass;
    std::shared_ptr<Call> call;  // to be answered; none if it is not to be sent
    Failure failure;             // why not
};

}  // namespace psycache::detail
