#!/usr/bin/env bash
# ffmpeg through the command and back, beside the file-to-file command. Called by test_pipes.py in an empty folder.
#   pipes.sh CLIP ADAPTER PYTHON
set -euo pipefail
clip=$1 adapter=$2 python=$3
translate() { "$python" -m shortcutv2v translate --adapter "$adapter" "$@"; }

# yuv4mpeg in and out, and the same frames from file to file
ffmpeg -v error -i "$clip" -f yuv4mpegpipe - | translate - - 2> words.txt \
  | ffmpeg -v error -f yuv4mpegpipe -i - -c:v ffv1 piped.mkv
ffmpeg -v error -i "$clip" -f yuv4mpegpipe - | tee in.y4m > /dev/null
translate in.y4m out.y4m 2>> words.txt > said.txt
ffmpeg -v error -i piped.mkv -f framemd5 - | grep -v '^#' | cut -d, -f6 > piped.md5
ffmpeg -v error -i out.y4m -f framemd5 - | grep -v '^#' | cut -d, -f6 > file.md5
cmp piped.md5 file.md5

# raw RGB in and out, and the same frames from folder to folder
mkdir frames
ffmpeg -v error -i "$clip" -vf format=rgb24 -start_number 0 frames/%04d.png
ffmpeg -v error -i frames/%04d.png -f rawvideo - | translate --raw 64x32@25 /dev/stdin - 2>> words.txt > out.rgb
translate frames out > said.txt 2>> words.txt
ffmpeg -v error -i out/%04d.png -f rawvideo out_files.rgb
cmp out.rgb out_files.rgb

wc -l < piped.md5
stat -c %s out.rgb
