#include "batching/group_statement.hpp"

#include <algorithm>
#include <numeric>
#include <optional>

#include "values/json_codec.hpp"

namespace psycache {

namespace {

/// What a call gets of the row that was found for it.
Result<CallAnswer> hit(const Call& call, std::string_view jsonb, std::size_t size) {
    CallAnswer answer;
    answer.size = size;
    if (call.as_text) {
        if (jsonb.empty() || jsonb.front() != pg::jsonb_version) {
            return Failure(Errc::protocol_error);
        }
        answer.text.emplace(jsonb.substr(1));
        return answer;
    }
    auto value = decode_jsonb(jsonb);
    if (!value) {
        return value.error();
    }
    answer.value = std::move(*value);
    return answer;
}

}  // namespace

GroupStatement::GroupStatement(const TableStatements& statements, CallSpan calls,
                               std::chrono::milliseconds lock_limit)
    : statements_(statements), calls_(calls), kind_(calls.front()->kind) {
    if (calls.size() == 1) {
        order_.push_back(0);
        runs_.push_back(Run{0, 1});
        one(*calls.front());
    } else {
        sort();
        many();
    }
    if (kind_ != CallKind::get) {
        parameters_.own(std::to_string(lock_limit.count()));
    }
}

void GroupStatement::sort() {
    const CallSpan calls = calls_;
    order_.resize(calls.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(),
                     [&](std::size_t a, std::size_t b) { return calls[a]->key < calls[b]->key; });
    for (std::size_t i = 0; i < order_.size(); ++i) {
        if (i == 0 || at(i).key != at(i - 1).key) {
            runs_.push_back(Run{i, i});
        }
        runs_.back().end = i + 1;
    }
}

void GroupStatement::one(const Call& call) {
    parameters_.borrow(call.key);
    switch (kind_) {
        case CallKind::get:
            statement_ = &statements_.get_one;
            break;
        case CallKind::put:
            statement_ = &statements_.put_one;
            parameters_.borrow(call.jsonb);
            if (call.ttl == no_expiry) {
                parameters_.null();
            } else {
                parameters_.int8(call.ttl.count());
            }
            break;
        case CallKind::remove:
            statement_ = &statements_.remove_one;
            break;
    }
}

void GroupStatement::many() {
    pg::ArrayBuilder keys(pg::Oid::text, runs_.size());
    for (const Run& run : runs_) {
        keys.add(at(run.begin).key);
    }
    parameters_.own(keys.take());
    switch (kind_) {
        case CallKind::get:
            statement_ = &statements_.get_many;
            return;
        case CallKind::remove:
            statement_ = &statements_.remove_many;
            return;
        case CallKind::put:
            statement_ = &statements_.put_many;
            break;
    }
    pg::ArrayBuilder values(pg::Oid::jsonb, runs_.size());
    pg::ArrayBuilder ttls(pg::Oid::int8, runs_.size());
    for (const Run& run : runs_) {
        const Call& last = at(run.end - 1);
        values.add(last.jsonb);
        if (last.ttl == no_expiry) {
            ttls.add_null();
        } else {
            ttls.add_int8(last.ttl.count());
        }
    }
    parameters_.own(values.take());
    parameters_.own(ttls.take());
}

void GroupStatement::answer(const pg::Rows& rows, const Deliver& deliver) const {
    switch (kind_) {
        case CallKind::get:
            return calls_.size() == 1 ? answer_get(rows, deliver) : answer_gets(rows, deliver);
        case CallKind::put:
            return answer_puts(rows, deliver);
        case CallKind::remove:
            return answer_removes(rows, deliver);
    }
}

void GroupStatement::answer_get(const pg::Rows& rows, const Deliver& deliver) const {
    if (rows.size() == 0) {
        return deliver(0, CallAnswer());
    }
    const auto size = statements_.sizes ? static_cast<std::size_t>(rows.integer(0, 1)) : 0;
    deliver(0, hit(*calls_.front(), rows.bytes(0, 0), size));
}

void GroupStatement::answer_gets(const pg::Rows& rows, const Deliver& deliver) const {
    // Rows come in no order, and none comes for a miss.
    std::vector<bool> found(runs_.size());
    for (std::size_t row = 0; row < rows.size(); ++row) {
        const auto run_number = static_cast<std::size_t>(rows.integer(row, 0)) - 1;
        if (run_number >= runs_.size() || found[run_number]) {
            continue;
        }
        found[run_number] = true;
        const std::size_t size =
            statements_.sizes ? static_cast<std::size_t>(rows.integer(row, 2)) : 0;
        const Run& run = runs_[run_number];
        const std::string_view jsonb = rows.bytes(row, 1);
        // Read once for each way in which it is wanted.
        std::optional<Result<CallAnswer>> as_object;
        for (std::size_t i = run.begin; i < run.end; ++i) {
            const Call& call = at(i);
            if (call.as_text) {
                deliver(order_[i], hit(call, jsonb, size));
            } else if (!as_object) {
                as_object = hit(call, jsonb, size);
            }
        }
        std::size_t left = run.end;
        while (as_object && left > run.begin && at(left - 1).as_text) {
            --left;
        }
        for (std::size_t i = run.begin; as_object && i < left; ++i) {
            if (!at(i).as_text) {
                deliver(order_[i],
                        i + 1 == left ? std::move(*as_object) : Result<CallAnswer>(*as_object));
            }
        }
    }
    for (std::size_t number = 0; number < runs_.size(); ++number) {
        if (!found[number]) {
            for (std::size_t i = runs_[number].begin; i < runs_[number].end; ++i) {
                deliver(order_[i], CallAnswer());
            }
        }
    }
}

void GroupStatement::answer_puts(const pg::Rows& rows, const Deliver& deliver) const {
    std::vector<std::size_t> sizes(statements_.sizes ? runs_.size() : 0);
    for (std::size_t row = 0; row < rows.size() && statements_.sizes; ++row) {
        if (const Run* run = find(rows.bytes(row, 0))) {
            sizes[static_cast<std::size_t>(run - runs_.data())] =
                static_cast<std::size_t>(rows.integer(row, 1));
        }
    }
    for (std::size_t number = 0; number < runs_.size(); ++number) {
        CallAnswer answer;
        answer.size = statements_.sizes ? sizes[number] : 0;
        for (std::size_t i = runs_[number].begin; i < runs_[number].end; ++i) {
            deliver(order_[i], Result<CallAnswer>(answer));
        }
    }
}

void GroupStatement::answer_removes(const pg::Rows& rows, const Deliver& deliver) const {
    std::vector<bool> existed(runs_.size());
    if (calls_.size() == 1) {
        existed.front() = rows.affected() > 0;
    }
    for (std::size_t row = 0; row < rows.size(); ++row) {
        if (const Run* run = find(rows.bytes(row, 0))) {
            existed[static_cast<std::size_t>(run - runs_.data())] = true;
        }
    }
    for (std::size_t number = 0; number < runs_.size(); ++number) {
        const Run& run = runs_[number];
        for (std::size_t i = run.begin; i < run.end; ++i) {
            CallAnswer answer;
            // As if they had come one after the other: the first one finds the entry.
            answer.existed = existed[number] && i == run.begin;
            deliver(order_[i], std::move(answer));
        }
    }
}

const GroupStatement::Run* GroupStatement::find(std::string_view key) const {
    const auto run = std::lower_bound(
        runs_.begin(), runs_.end(), key,
        [&](const Run& r, std::string_view k) { return std::string_view(at(r.begin).key) < k; });
    return run != runs_.end() && at(run->begin).key == key ? &*run : nullptr;
}

}  // namespace psycache
