# gnuplot -c scale.gnuplot TABLES OUT.svg: a picture of what bench_scale prints.
tables = ARG1
set terminal svg size 1000,720 dynamic background rgb 'white' font 'sans-serif,13'
set output ARG2
set multiplot layout 2,2
set logscale x 10
set format x '10^{%T}'
set grid
set key below
set yrange [0:*]

set xlabel 'rows of the table'
set ylabel 'microseconds, one caller'
plot tables index 0 using 1:3 with linespoints pointtype 7 title 'get, p50', \
     tables index 0 using 1:4 with linespoints pointtype 6 title 'get, p99', \
     tables index 0 using 1:5 with linespoints pointtype 7 title 'put, p50', \
     tables index 0 using 1:9 with linespoints pointtype 5 title 'cleanup, a row'
set ylabel 'thousand calls a second'
plot tables index 0 using 1:($7/1000) with linespoints pointtype 7 title 'gets', \
     tables index 0 using 1:($8/1000) with linespoints pointtype 7 title 'puts'

set xlabel 'callers at the same time'
plot tables index 1 using 1:($2/1000) with linespoints pointtype 7 title 'gets'
set logscale y 10
set yrange [*:*]
set ylabel 'microseconds; KiB'
plot tables index 1 using 1:3 with linespoints pointtype 7 title 'get, p50', \
     tables index 1 using 1:4 with linespoints pointtype 6 title 'get, p99', \
     tables index 1 using 1:5 with linespoints pointtype 5 title 'client CPU of a get', \
     tables index 1 using 1:6 with linespoints pointtype 4 title 'KiB of memory for a caller'
