#include "loading/load_group.hpp"

#include <algorithm>
#include <iterator>

namespace psycache::detail {

CallOptions LoadGroup::call() const {
    return members_.front()->order.call();
}

void LoadGroup::settle() {
    for (const auto& member : members_) {
        const Step next = member->progress.next();
        const bool has_begun = next == Step::publish || next == Step::defer ||
                               next == Step::give_back || next == Step::done;
        if (!has_begun && member->duty.abandoned()) {
            member->progress.abandon();
        }
        if (member->progress.next() == Step::done) {
            member->progress.finish();
        }
    }
    std::erase_if(members_,
                  [](const auto& member) { return member->progress.next() == Step::done; });
}

LoadGroup::Members LoadGroup::at(Step step) const {
    Members members;
    for (const auto& member : members_) {
        const Step next = member->progress.next();
        if (next == step || (step == Step::give_back && next == Step::defer)) {
            members.push_back(member.get());
        }
    }
    return members;
}

LoadGroup LoadGroup::waiting() {
    LoadGroup others;
    const auto waits = std::stable_partition(
        members_.begin(), members_.end(),
        [](const auto& member) { return member->progress.next() != Step::pause; });
    others.members_.assign(std::make_move_iterator(waits), std::make_move_iterator(members_.end()));
    members_.erase(waits, members_.end());
    return others;
}

std::vector<ClaimOne> LoadGroup::claims(const Members& members) {
    return requests(members, [](Member& member) { return member.progress.claim(); });
}

std::vector<LookAgain> LoadGroup::looks(const Members& members) {
    return requests(members, [](Member& member) { return LookAgain(member.order.key); });
}

std::vector<EndOne> LoadGroup::ends(const Members& members) {
    return requests(members, [](Member& member) { return member.progress.end(); });
}

std::vector<PublishOne> LoadGroup::publications(Members& members) {
    std::vector<PublishOne> all;
    std::erase_if(members, [&](Member* member) {
        auto request = member->progress.publish();
        if (request) {
            all.push_back(std::move(*request));
        }
        return !request;
    });
    return all;
}

std::vector<std::string> LoadGroup::keys(const Members& members) {
    return requests(members, [](Member& member) { return member.order.key; });
}

TimePoint LoadGroup::pause(const Members& members) {
    TimePoint until = TimePoint::max();
    for (Member* const member : members) {
        until = std::min(until, member->progress.pause());
    }
    return until;
}

void LoadGroup::loaded(const Members& members, const std::exception_ptr& error,
                       LoadedValues&& values) {
    for (std::size_t i = 0; i < members.size(); ++i) {
        members[i]->progress.loaded(error, error ? std::nullopt : std::move(values[i]));
    }
}

}  // namespace psycache::detail
