#include "loading/load_steps.hpp"

namespace psycache::detail {

LoadSteps::LoadSteps(Kind kind, const Sight& seen)
    : kind_(kind), step_(Step::claim), version_(seen.version) {
    if (kind == Kind::uncached) {
        step_ = Step::load;
    } else if (seen.state == Sight::State::leased) {
        step_ = Step::pause;
        elsewhere_ = true;
    }
}

void LoadSteps::claimed(const Claimed& answer) {
    switch (answer.answer) {
        case Claimed::Answer::yes:
            holds_lease_ = true;
            if (kind_ == Kind::of_absent) {
                version_ = answer.version;
            }
            step_ = Step::load;
            break;
        case Claimed::Answer::no:
            elsewhere_ = true;
            step_ = kind_ == Kind::renewal ? Step::done : Step::look;
            break;
        case Claimed::Answer::out_of_reach:
            step_ = Step::load;
            break;
    }
}

void LoadSteps::looked(const Sight& seen) {
    switch (seen.state) {
        case Sight::State::live:
            step_ = Step::done;
            break;
        case Sight::State::leased:
            elsewhere_ = true;
            step_ = Step::pause;
            break;
        case Sight::State::absent:
            step_ = Step::claim;
            break;
        case Sight::State::out_of_reach:
            step_ = Step::load;
            break;
    }
}

void LoadSteps::loaded(Loaded what) {
    if (!holds_lease_) {
        step_ = Step::done;
        return;
    }
    switch (what) {
        case Loaded::value:
            step_ = Step::publish;
            break;
        case Loaded::nothing:
            step_ = Step::give_back;
            break;
        case Loaded::failure:
            step_ = Step::defer;
            break;
    }
}

void LoadSteps::published(bool stored) {
    too_late_ = !stored;
    // The value has taken the place of the stub, but for that of a renewal.
    step_ = kind_ == Kind::renewal ? Step::give_back : Step::done;
}

void LoadSteps::abandon() {
    step_ = holds_lease_ ? Step::give_back : Step::done;
}

void LoadSteps::failed() {
    step_ = has_claimed_ ? Step::give_back : Step::done;
}

}  // namespace psycache::detail
