#include "batching/group_statement.hpp"

#include <algorithm>
#include <numeric>

#include "values/json_codec.hpp"

namespace psycache {

namespace {

Result<CallAnswer> hit(std::string_view jsonb, std::size_t size) {
    auto value = decode_jsonb(jsonb);
    if (!value) {
        return value.error();
    }
    CallAnswer answer;
    answer.value = std::move(*value);
    answer.size = size;
    return answer;
}

}  // namespace

GroupStatement::GroupStatement(const TableStatements& statements, const Calls& calls)
    : statements_(statements), calls_(calls), kind_(calls.front()->kind) {
    if (calls.size() == 1) {
        order_ = {0};
        runs_ = {Run{0, 1}};
        one(*calls.front());
        return;
    }
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
    many();
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

std::vector<Result<CallAnswer>> GroupStatement::answers(const pg::Rows& rows) const {
    switch (kind_) {
        case CallKind::get:
            return get_answers(rows);
        case CallKind::put:
            return put_answers(rows);
        case CallKind::remove:
            return remove_answers(rows);
    }
    return {};
}

std::vector<Result<CallAnswer>> GroupStatement::get_answers(const pg::Rows& rows) const {
    std::vector<Result<CallAnswer>> answers(calls_.size(), CallAnswer());
    const std::size_t first_column = calls_.size() == 1 ? 0 : 1;
    for (std::size_t row = 0; row < rows.size(); ++row) {
        const std::size_t run_number =
            first_column == 0 ? 0 : static_cast<std::size_t>(rows.integer(row, 0)) - 1;
        if (run_number >= runs_.size()) {
            continue;
        }
        const std::size_t size =
            statements_.sizes ? static_cast<std::size_t>(rows.integer(row, first_column + 1)) : 0;
        const Run& run = runs_[run_number];
        Result<CallAnswer> answer = hit(rows.bytes(row, first_column), size);
        for (std::size_t i = run.begin; i + 1 < run.end; ++i) {
            answers[order_[i]] = answer;
        }
        answers[order_[run.end - 1]] = std::move(answer);
    }
    return answers;
}

std::vector<Result<CallAnswer>> GroupStatement::put_answers(const pg::Rows& rows) const {
    std::vector<Result<CallAnswer>> answers(calls_.size(), CallAnswer());
    if (!statements_.sizes) {
        return answers;
    }
    for (std::size_t row = 0; row < rows.size(); ++row) {
        if (const Run* run = find(rows.bytes(row, 0))) {
            for (std::size_t i = run->begin; i < run->end; ++i) {
                answers[order_[i]]->size = static_cast<std::size_t>(rows.integer(row, 1));
            }
        }
    }
    return answers;
}

std::vector<Result<CallAnswer>> GroupStatement::remove_answers(const pg::Rows& rows) const {
    std::vector<Result<CallAnswer>> answers(calls_.size(), CallAnswer());
    if (calls_.size() == 1) {
        answers.front()->existed = rows.affected() > 0;
        return answers;
    }
    for (std::size_t row = 0; row < rows.size(); ++row) {
        if (const Run* run = find(rows.bytes(row, 0))) {
            // As if they had come one after the other: the first one finds the entry.
            answers[order_[run->begin]]->existed = true;
        }
    }
    return answers;
}

const GroupStatement::Run* GroupStatement::find(std::string_view key) const {
    const auto run = std::lower_bound(
        runs_.begin(), runs_.end(), key,
        [&](const Run& r, std::string_view k) { return std::string_view(at(r.begin).key) < k; });
    return run != runs_.end() && at(run->begin).key == key ? &*run : nullptr;
}

}  // namespace psycache
