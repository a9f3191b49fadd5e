#include "throughput/matrix.hpp"

#include <utility>

namespace bench {

namespace {

/// Adds cases to one group.
class Builder {
  public:
    Builder(const Arena& arena, const Data& data, Workload workload, bool important)
        : arena_(arena), data_(data) {
        workload.value_size = data.value_size();
        group_.workload = std::move(workload);
        group_.important = important;
    }

    Builder& async(std::initializer_list<std::size_t> callers) {
        return async(async_name, callers, Runners());
    }
    /// Two threads, on one io_context or on one each.
    Builder& async_on_threads(std::initializer_list<std::size_t> callers) {
        return async(threads_name, callers, Runners{1, 2})
            .async(contexts_name, callers, Runners{2, 1});
    }
    Builder& blocking(std::initializer_list<std::size_t> threads) {
        return each(blocking_name, threads, psycache_blocking);
    }
    Builder& libpq(std::initializer_list<std::size_t> threads, Parse parse = Parse::yes) {
        return each(parse == Parse::yes ? libpq_name : libpq_text_name, threads,
                    [parse](const Arena& arena, const Data& data, const Workload& workload,
                            std::size_t count) {
                        return plain_libpq(arena, data, workload, count, parse);
                    });
    }
    Builder& pqxx(std::initializer_list<std::size_t> threads) {
        return each(pqxx_name, threads, libpqxx);
    }
    Builder& generated(std::initializer_list<std::size_t> connections,
                       Traffic traffic = Traffic::plain) {
        const char* name = pgbench_name;
        if (group_.workload.keys_per_call() > 1) {
            name = pgbench_batch_name;
        } else if (traffic == Traffic::pipelined) {
            name = pgbench_pipeline_name;
        } else if (traffic == Traffic::python) {
            name = python_name;
        }
        return each(name, connections,
                    [traffic](const Arena& arena, const Data& data, const Workload& workload,
                              std::size_t count) {
                        return pgbench(arena, data, workload, count, traffic);
                    });
    }
    Builder& redis(std::initializer_list<std::size_t> connections, std::size_t pipeline = 1) {
        const char* name = pipeline > 1 ? redis_pipeline_name : redis_name;
        if (group_.workload.keys_per_call() > 1) {
            name = redis_batch_name;
        }
        return each(name, connections,
                    [pipeline](const Arena& arena, const Data& data, const Workload& workload,
                               std::size_t count) {
                        return redis_benchmark(arena, data, workload, count, pipeline);
                    });
    }
    Builder& hiredis() {
        return each(group_.workload.keys_per_call() > 1 ? hiredis_batch_name : hiredis_name, {1},
                    [](const Arena& arena, const Data& data, const Workload& workload,
                       std::size_t) { return hiredis_blocking(arena, data, workload); });
    }
    Builder& hiredis_outstanding(std::initializer_list<std::size_t> callers) {
        return each(hiredis_pipeline_name, callers, hiredis_pipelined);
    }

    /// Client and server on a core each, for all lone callers of the group.
    Builder& apart() {
        for (Case& one : group_.cases) {
            one.placement = Placement::apart;
        }
        return *this;
    }

    operator Group() const { return group_; }

  private:
    Builder& async(const char* name, std::initializer_list<std::size_t> callers, Runners runners) {
        return each(name, callers,
                    [runners](const Arena& arena, const Data& data, const Workload& workload,
                              std::size_t count) {
                        return psycache_async(arena, data, workload, count, runners);
                    });
    }

    template <class Make>
    Builder& each(const char* name, std::initializer_list<std::size_t> callers, Make make) {
        for (const std::size_t count : callers) {
            Case added;
            added.contender = name;
            added.callers = count;
            // With more than one thing to do at a time, both have work all the time.
            if (count == 1 && group_.workload.keys_per_call() == 1 && name != redis_pipeline_name) {
                added.placement = Placement::together;
            }
            added.make = [&arena = arena_, &data = data_, workload = group_.workload, make, count] {
                return make(arena, data, workload, count);
            };
            group_.cases.push_back(std::move(added));
        }
        return *this;
    }

    const Arena& arena_;
    const Data& data_;
    Group group_;
};

Workload workload(std::string name, Operation operation) {
    Workload result;
    result.name = std::move(name);
    result.operation = operation;
    return result;
}

/// Calls of servers that have other things to do as well.
Workload busy() {
    Workload result = workload(get_busy_name, Operation::get);
    result.own_work = std::chrono::microseconds(20);
    return result;
}

std::vector<Group> small_matrix(const Arena& arena, const Data& data) {
    std::vector<Group> groups;
    groups.push_back(Builder(arena, data, workload(get_name, Operation::get), true)
                         .async({1, 8})
                         .blocking({1, 2})
                         .libpq({1, 2})
                         .libpq({1}, Parse::no)
                         .pqxx({1, 2}));
    groups.push_back(Builder(arena, data, workload(put_name, Operation::put), true)
                         .async({1, 8})
                         .blocking({1})
                         .libpq({1})
                         .pqxx({1}));
    groups.push_back(Builder(arena, data, busy(), true).async({8}).async_on_threads({8}));
    groups.push_back(
        Builder(arena, data, workload("mix 90/10", Operation::mix), false).async({8}).libpq({2}));
    groups.push_back(
        Builder(arena, data, workload("get 64 keys at once", Operation::get_many), false)
            .async({2})
            .blocking({1}));
    groups.push_back(
        Builder(arena, data, workload("put 64 keys at once", Operation::put_many), false)
            .async({2})
            .blocking({1}));
    groups.push_back(
        Builder(arena, data, workload("get as text", Operation::get_text), false).async({8}));
    groups.push_back(
        Builder(arena, data, workload("put as text", Operation::put_text), false).async({8}));
    return groups;
}

std::vector<Group> quick_matrix(const Arena& arena, const Data& data) {
    const std::size_t pool = default_pool_size();
    std::vector<Group> groups;
    groups.push_back(Builder(arena, data, workload(get_name, Operation::get), true)
                         .async({1, 8, 64, 256})
                         .blocking({1})
                         .libpq({1, 8})
                         .generated({pool, 8, 64})
                         .redis({16})
                         .hiredis_outstanding({64}));
    groups.push_back(Builder(arena, data, workload(get_apart_name, Operation::get), true)
                         .async({1})
                         .blocking({1})
                         .libpq({1})
                         .apart());
    groups.push_back(Builder(arena, data, workload(put_name, Operation::put), true)
                         .async({1, 64})
                         .libpq({1})
                         .generated({pool, 8, 64})
                         .redis({16}));
    return groups;
}

std::vector<Group> whole_matrix(const Arena& arena,
                                const std::map<std::size_t, std::unique_ptr<Data>>& all_data) {
    const std::size_t pool = default_pool_size();
    const std::vector<std::size_t> sizes = value_sizes(Scale::whole);
    const Data& data = *all_data.at(sizes.front());

    std::vector<Group> groups;
    groups.push_back(Builder(arena, data, workload(get_name, Operation::get), true)
                         .async({1, 8, 64, 256})
                         .async_on_threads({64})
                         .blocking({1, 8})
                         .libpq({1, 8})
                         .libpq({1}, Parse::no)
                         .pqxx({1, 8})
                         .generated({1, pool, 8, 64})
                         .generated({pool}, Traffic::pipelined)
                         .generated({8}, Traffic::python)
                         .redis({1, 8, 16, 64, 256})
                         .redis({1, 16, 64}, 16)
                         .hiredis()
                         .hiredis_outstanding({64}));
    groups.push_back(Builder(arena, data, workload(get_apart_name, Operation::get), true)
                         .async({1})
                         .blocking({1})
                         .libpq({1})
                         .libpq({1}, Parse::no)
                         .pqxx({1})
                         .generated({1})
                         .redis({1})
                         .hiredis()
                         .apart());
    groups.push_back(Builder(arena, data, busy(), true)
                         .async({64})
                         .async_on_threads({64})
                         .blocking({8})
                         .libpq({8}));
    groups.push_back(Builder(arena, data, workload(put_name, Operation::put), true)
                         .async({1, 8, 64, 256})
                         .blocking({1, 8})
                         .libpq({1, 8})
                         .pqxx({1})
                         .generated({pool, 8, 64})
                         .generated({pool}, Traffic::pipelined)
                         .generated({8}, Traffic::python)
                         .redis({1, 16, 64})
                         .redis({16}, 16)
                         .hiredis()
                         .hiredis_outstanding({64}));

    Workload zipf = workload("get hit, Zipf", Operation::get);
    zipf.zipf = true;
    groups.push_back(Builder(arena, data, zipf, false)
                         .async({1, 64})
                         .libpq({1})
                         .generated({pool})
                         .hiredis_outstanding({64}));
    Workload miss = workload("get miss", Operation::get);
    miss.miss = true;
    groups.push_back(Builder(arena, data, miss, false)
                         .async({1, 64})
                         .blocking({1})
                         .libpq({1})
                         .generated({pool})
                         .redis({16}));
    groups.push_back(Builder(arena, data, workload("mix 90/10", Operation::mix), false)
                         .async({1, 64})
                         .blocking({8})
                         .libpq({1, 8})
                         .generated({pool})
                         .hiredis_outstanding({64}));
    groups.push_back(
        Builder(arena, data, workload("get 64 keys at once", Operation::get_many), false)
            .async({1, 8})
            .blocking({1})
            .generated({pool})
            .redis({1})
            .hiredis());
    groups.push_back(
        Builder(arena, data, workload("put 64 keys at once", Operation::put_many), false)
            .async({1, 8})
            .blocking({1})
            .generated({pool})
            .redis({1}));
    groups.push_back(Builder(arena, data, workload("get as text", Operation::get_text), false)
                         .async({1, 64})
                         .generated({pool})
                         .redis({16}));
    groups.push_back(Builder(arena, data, workload("put as text", Operation::put_text), false)
                         .async({1, 64})
                         .generated({pool})
                         .redis({16}));

    for (std::size_t i = 1; i < sizes.size(); ++i) {
        const Data& other = *all_data.at(sizes[i]);
        groups.push_back(Builder(arena, other, workload(get_name, Operation::get), false)
                             .async({1, 64})
                             .libpq({1})
                             .generated({pool})
                             .redis({16}));
        groups.push_back(Builder(arena, other, workload(put_name, Operation::put), false)
                             .async({64})
                             .generated({pool})
                             .redis({16}));
        // What reading and writing the JSON costs grows with it.
        if (sizes[i] > 1000) {
            groups.push_back(
                Builder(arena, other, workload("get as text", Operation::get_text), false)
                    .async({64})
                    .generated({pool})
                    .redis({16}));
        }
    }
    return groups;
}

}  // namespace

std::vector<std::size_t> value_sizes(Scale scale) {
    if (scale == Scale::whole) {
        return {200, 100, 1024, std::size_t{16} * 1024};
    }
    return {200};
}

std::size_t key_count(Scale scale, std::size_t value_size) {
    if (scale == Scale::smoke) {
        return 100;
    }
    // All in memory, also where there is little.
    return value_size > 4096 ? 2000 : 10000;
}

std::vector<Group> matrix(Scale scale, const Arena& arena,
                          const std::map<std::size_t, std::unique_ptr<Data>>& data) {
    switch (scale) {
        case Scale::smoke:
            return small_matrix(arena, *data.begin()->second);
        case Scale::quick:
            return quick_matrix(arena, *data.begin()->second);
        default:
            return whole_matrix(arena, data);
    }
}

const Case* find_case(const std::vector<Group>& groups, const std::string& workload,
                      std::size_t value_size, const std::string& contender, std::size_t callers) {
    for (const Group& group : groups) {
        if (group.workload.name == workload && group.workload.value_size == value_size) {
            return find_case(group, contender, callers);
        }
    }
    return nullptr;
}

const Case* find_case(const Group& group, const std::string& contender, std::size_t callers) {
    for (const Case& one : group.cases) {
        if (one.contender == contender && one.callers == callers) {
            return &one;
        }
    }
    return nullptr;
}

}  // namespace bench
