#include "throughput/redis.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <algorithm>
#include <array>
#include <boost/json/serialize.hpp>
#include <csignal>
#include <stdexcept>
#include <thread>
#include <vector>

#include "throughput/cpu_time.hpp"

namespace bench {

namespace {

using namespace std::chrono_literals;

/// Debian's redis-server package would install a service. Its program is in redis-tools as well, by
/// the name of the tool that it also is; which of them it is to be is decided by the name it is
/// called by.
std::string find_server() {
    for (const char* name : {"redis-server", "redis-check-rdb"}) {
        if (const auto program = find_program(name)) {
            return *program;
        }
    }
    throw Unavailable("no Redis server found (Debian: redis-tools)");
}

/// Just enough of a client to fill a server, so that hiredis is not needed for it.
class Loader {
  public:
    explicit Loader(const std::string& path) : socket_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        connected_ =
            connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    }
    Loader(const Loader&) = delete;
    Loader& operator=(const Loader&) = delete;
    ~Loader() { close(socket_); }

    bool connected() const { return connected_; }

    void send(const std::vector<std::string>& command) {
        add_line('*', command.size());
        for (const std::string& word : command) {
            add_line('$', word.size());
            text_ += word;
            text_ += "\r\n";
        }
        ++waiting_;
        if (text_.size() > 60000) {
            finish();
        }
    }

    void finish() {
        for (std::size_t sent = 0; sent < text_.size();) {
            const ssize_t size = write(socket_, text_.data() + sent, text_.size() - sent);
            if (size <= 0) {
                throw std::runtime_error("cannot write to Redis");
            }
            sent += static_cast<std::size_t>(size);
        }
        text_.clear();
        std::array<char, 4096> buffer{};
        while (waiting_ > 0) {
            const ssize_t size = read(socket_, buffer.data(), buffer.size());
            if (size <= 0) {
                throw std::runtime_error("cannot read from Redis");
            }
            const auto end = buffer.begin() + size;
            if (std::find(buffer.begin(), end, '-') != end) {
                throw std::runtime_error("Redis refuses to be filled");
            }
            waiting_ -= std::count(buffer.begin(), end, '\n');
        }
    }

    std::string version() {
        const std::string question = "INFO server\r\n";
        const std::string label = "redis_version:";
        std::string answer;
        std::array<char, 4096> buffer{};
        std::size_t begin = std::string::npos;
        std::size_t end = std::string::npos;
        ssize_t size = write(socket_, question.data(), question.size());
        while (size > 0 && end == std::string::npos) {
            size = read(socket_, buffer.data(), buffer.size());
            if (size > 0) {
                answer.append(buffer.data(), static_cast<std::size_t>(size));
            }
            begin = answer.find(label);
            end = begin == std::string::npos ? begin : answer.find('\r', begin);
        }
        if (end == std::string::npos) {
            return "unknown";
        }
        begin += label.size();
        return answer.substr(begin, end - begin);
    }

  private:
    void add_line(char kind, std::size_t number) {
        text_ += kind;
        text_ += std::to_string(number);
        text_ += "\r\n";
    }

    int socket_;
    bool connected_ = false;
    std::string text_;
    std::ptrdiff_t waiting_ = 0;
};

}  // namespace

Redis::Redis() {
    const std::string program = find_server();
    const std::vector<std::string> words{
        "redis-server", "--port", "0",     "--unixsocket",      socket(), "--save", "",
        "--appendonly", "no",     "--dir", dir_.path().string()};
    std::vector<char*> arguments;
    for (const std::string& word : words) {
        arguments.push_back(const_cast<char*>(word.c_str()));
    }
    arguments.push_back(nullptr);

    const std::string log = (dir_.path() / "redis.log").string();
    process_ = fork();
    if (process_ == 0) {
        // Control-C is for this program, which then ends the server when it no longer needs it.
        setpgid(0, 0);
#ifdef __linux__
        // Should this program be killed.
        prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
        const int file = open(log.c_str(), O_WRONLY | O_CREAT, 0600);
        dup2(file, STDOUT_FILENO);
        dup2(file, STDERR_FILENO);
        execv(program.c_str(), arguments.data());
        _exit(127);
    }
    for (int attempt = 0; process_ > 0 && attempt < 500; ++attempt) {
        Loader loader(socket());
        if (loader.connected()) {
            version_ = loader.version();
            return;
        }
        if (waitpid(process_, nullptr, WNOHANG) == process_) {
            process_ = -1;
        }
        std::this_thread::sleep_for(10ms);
    }
    if (process_ > 0) {
        kill(process_, SIGKILL);
        waitpid(process_, nullptr, 0);
    }
    throw Unavailable("the Redis server did not start");
}

Redis::~Redis() {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
}

void Redis::load(const Data& data) {
    const int database = static_cast<int>(databases_.size());
    Loader loader(socket());
    loader.send({"SELECT", std::to_string(database)});
    for (std::size_t id = 0; id < data.key_count(); ++id) {
        loader.send({"SET", data.hits()[id], json::serialize(value_of(data.value_size(), id))});
        loader.send({"SET", data.puts()[id], data.put_text()});
    }
    loader.finish();
    databases_[data.value_size()] = database;
}

std::optional<double> Redis::cpu_seconds() const {
    return bench::cpu_seconds_of(process_, false);
}

}  // namespace bench
