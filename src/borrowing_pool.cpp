#include <psycache/borrowing_pool.hpp>

#include <stdexcept>
#include <utility>

namespace psycache {

AsyncBorrowingPool::AsyncBorrowingPool(asio::any_io_executor executor, Borrow borrow)
    : executor_(std::move(executor)), borrow_(std::move(borrow)) {
    if (!executor_) {
        throw std::invalid_argument("AsyncBorrowingPool: executor must not be empty");
    }
    if (!borrow_) {
        throw std::invalid_argument("AsyncBorrowingPool: borrow must not be empty");
    }
}

AsyncBorrowingPool::~AsyncBorrowingPool() = default;

asio::awaitable<ConnectionLease> AsyncBorrowingPool::connect() {
    BorrowedConnection borrowed = co_await borrow_();
    ConnectionLease lease(std::move(borrowed));
    co_return lease;
}

asio::any_io_executor AsyncBorrowingPool::get_executor() const noexcept {
    return executor_;
}

BorrowingPool::BorrowingPool(Borrow borrow) : borrow_(std::move(borrow)) {
    if (!borrow_) {
        throw std::invalid_argument("BorrowingPool: borrow must not be empty");
    }
}

BorrowingPool::~BorrowingPool() = default;

BorrowedConnection BorrowingPool::connect() {
    return borrow_();
}

}  // namespace psycache
