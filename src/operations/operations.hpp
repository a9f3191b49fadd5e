#pragma once

#include "operations/claim_load.hpp"
#include "operations/cleanup.hpp"
#include "operations/clear.hpp"
#include "operations/compare_and_put.hpp"
#include "operations/evict.hpp"
#include "operations/flush.hpp"
#include "operations/get.hpp"
#include "operations/get_and_touch.hpp"
#include "operations/get_entry.hpp"
#include "operations/increment.hpp"
#include "operations/look_up.hpp"
#include "operations/merge.hpp"
#include "operations/publish_load.hpp"
#include "operations/put.hpp"
#include "operations/put_if_absent.hpp"
#include "operations/put_tagged.hpp"
#include "operations/release_load.hpp"
#include "operations/remove.hpp"
#include "operations/remove_prefix.hpp"
#include "operations/remove_tag.hpp"
#include "operations/replace.hpp"
#include "operations/table.hpp"
#include "operations/take.hpp"
#include "operations/touch.hpp"

namespace psycache::detail {

/// The statements of every operation, for one table.
struct Operations {
    Operations(const std::optional<std::string>& schema, bool sizes,
               std::chrono::milliseconds patience)
        : table(schema, sizes, patience) {}

    const Table table;
    const Get get{table};
    const Put put{table};
    const PutTagged put_tagged{table};
    const Remove remove{table};
    const Touch touch{table};
    const PutIfAbsent put_if_absent{table};
    const Replace replace{table};
    const ConditionalPutTagged put_if_absent_tagged{table, "put_if_absent", false,
                                                    ConditionalPutTagged::absent(table)};
    const ConditionalPutTagged replace_tagged{table, "replace", true,
                                              ConditionalPutTagged::live(table)};
    const CompareAndPut compare_and_put{table};
    const Take take{table};
    const GetAndTouch get_and_touch{table};
    const GetEntry get_entry{table, "get_entry", true};
    const GetEntry expires_in{table, "expires_in", false};
    const Increment increment{table};
    const Merge merge{table};
    const LookUp look_up{table};
    const ClaimLoad claim_load{table};
    const ClaimLoadTagged claim_load_tagged{table};
    const PublishLoad publish_load{table, false};
    const PublishLoad publish_load_tagged{table, true};
    const ReleaseLoad release_load{table};
    const DeferLoad defer_load{table};
    const RemovePrefix remove_prefix{table};
    const RemoveTag remove_tag{table};
    const Clear clear{table};
    const Flush flush{table};
    const Cleanup cleanup{table};
    const Evict evict{table};
};

}  // namespace psycache::detail
