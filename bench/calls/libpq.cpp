#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cstdint>
#include <string_view>

#include "calls/contender.hpp"
#include "calls/postgres.hpp"

namespace bench {

namespace {

constexpr char jsonb_version = 1;
constexpr std::array<Oid, 3> put_types{25, 3802, 20};  // text, jsonb, bigint

class LibpqSession : public Session {
  public:
    explicit LibpqSession(const std::string& schema) {
        prepare("get", get_sql(schema), 1);
        prepare("put", put_sql(schema), 3);
        std::uint64_t number = static_cast<std::uint64_t>(entry_ttl.count());
        for (std::size_t i = ttl_.size(); i > 0; --i) {
            ttl_[i - 1] = static_cast<char>(number & 0xffU);
            number >>= 8U;
        }
    }

    std::optional<json::object> get(const std::string& key) override {
        const std::array<const char*, 1> values{key.c_str()};
        const std::array<int, 1> lengths{static_cast<int>(key.size())};
        const std::array<int, 1> formats{1};
        const ResultPtr result = connection_.checked(PQexecPrepared(
            connection_.get(), "get", 1, values.data(), lengths.data(), formats.data(), 1));
        if (PQntuples(result.get()) == 0) {
            return std::nullopt;
        }
        const std::string_view bytes(PQgetvalue(result.get(), 0, 0),
                                     static_cast<std::size_t>(PQgetlength(result.get(), 0, 0)));
        json::value value = json::parse(bytes.substr(1));
        return std::move(value.as_object());
    }

    void put(const std::string& key, const json::object& value) override {
        const std::string bytes = jsonb_version + json::serialize(value);
        const std::array<const char*, 3> values{key.c_str(), bytes.data(), ttl_.data()};
        const std::array<int, 3> lengths{static_cast<int>(key.size()),
                                         static_cast<int>(bytes.size()),
                                         static_cast<int>(ttl_.size())};
        const std::array<int, 3> formats{1, 1, 1};
        connection_.checked(PQexecPrepared(connection_.get(), "put", 3, values.data(),
                                           lengths.data(), formats.data(), 1));
    }

  private:
    void prepare(const char* name, const std::string& sql, int parameters) const {
        connection_.checked(
            PQprepare(connection_.get(), name, sql.c_str(), parameters, put_types.data()));
    }

    Connection connection_;
    std::array<char, 8> ttl_{};
};

}  // namespace

std::unique_ptr<Contender> libpq(const Job& job, const Data& data) {
    return std::make_unique<ThreadsContender>(
        job, data, [&job] { return std::make_unique<LibpqSession>(job.schema); });
}

}  // namespace bench
