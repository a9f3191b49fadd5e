# To be sourced: which files are the project's.

# Prints the files git knows or would add, relative to the working directory, which must be the top
# of the checkout. Without git (an unpacked archive) everything but the build trees.
project_files() {
    # safe.directory: root may run the tests in a checkout of somebody else.
    if git -c safe.directory='*' rev-parse --git-dir >/dev/null 2>&1; then
        git -c safe.directory='*' ls-files --cached --others --exclude-standard |
            while IFS= read -r file; do
                # A file deleted but not yet committed is still listed.
                if [ -f "$file" ]; then printf '%s\n' "$file"; fi
            done
    else
        find . -path ./build -prune -o -type f -printf '%P\n' | sort
    fi
}
