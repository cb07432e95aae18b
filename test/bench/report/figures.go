package main

import (
	"bytes"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const (
	width, height = 18 * vg.Centimeter, 12 * vg.Centimeter
	margin        = vg.Length(10)

	lineWidth, thinLine = vg.Length(1.8), vg.Length(0.6)
)

// The colors are of a palette that color-blind people can tell apart (Okabe and Ito).
var (
	blue       = color.RGBA{0x00, 0x72, 0xb2, 0xff}
	vermillion = color.RGBA{0xd5, 0x5e, 0x00, 0xff}
	green      = color.RGBA{0x00, 0x9e, 0x73, 0xff}
	purple     = color.RGBA{0xcc, 0x79, 0xa7, 0xff}
	gray       = color.RGBA{0x6e, 0x77, 0x81, 0xff}
	gridColor  = color.RGBA{0xe5, 0xe8, 0xeb, 0xff}
)

var dashed = []vg.Length{vg.Points(5), vg.Points(3)}

// figure is a plot of one or more groups of samples over numbers (snapshots, callers) or words.
type figure struct {
	title, x, y string
	ticks       []float64 // of the x axis, which is logarithmic
	words       []string  // or its words
	yTicks      plot.Ticker
	curves      []curve
}

// curve is samples at each x. On an axis of numbers their medians are joined, with their extremes as bars; on one
// of words each is shown.
type curve struct {
	name   string
	color  color.Color
	dashes []vg.Length
	x      []float64
	y      [][]float64
}

func (c *curve) add(x float64, samples []float64) {
	if len(samples) > 0 {
		c.x, c.y = append(c.x, x), append(c.y, samples)
	}
}

// save draws the figure into a file of the format that its name ends with.
func (f figure) save(path string) error {
	format := strings.TrimPrefix(filepath.Ext(path), ".")
	canvas, err := draw.NewFormattedCanvas(width, height, format)
	if err != nil {
		return err
	}
	if err := f.draw(draw.New(canvas)); err != nil {
		return err
	}
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return err
	}
	text := out.Bytes()
	if format == "svg" {
		// Whoever has no Liberation Sans has a font of the same metrics.
		text = bytes.ReplaceAll(text, []byte("font-family:Liberation Sans"),
			[]byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif"))
	}
	return os.WriteFile(path, text, 0o644)
}

// draw draws the title, the legend below it, and the plot below that: a legend within a plot is always in the
// way of somebody's samples.
func (f figure) draw(c draw.Canvas) error {
	c.SetColor(color.White)
	c.Fill(c.Path())
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	f.axes(p)
	legend := plot.NewLegend()
	legend.Top, legend.Left = true, true
	legend.ThumbnailWidth, legend.Padding = vg.Points(24), vg.Points(3)
	for i := range f.curves {
		drawn, err := f.curve(i)
		if err != nil {
			return err
		}
		p.Add(drawn.plotters...)
		legend.Add(" "+f.curves[i].name, drawn.legend...)
	}
	f.limit(p)

	c = draw.Crop(c, margin, -margin, margin, -margin)
	style := p.Title.TextStyle
	style.XAlign, style.YAlign = draw.XLeft, draw.YTop
	line := func(text string, size vg.Length) {
		style.Font.Size = size
		c.FillText(style, vg.Point{X: c.Min.X, Y: c.Max.Y}, text)
		c.Max.Y -= style.Height(text) + margin
	}
	line(f.title, vg.Points(14))
	legend.Draw(c)
	c.Max.Y -= legend.Rectangle(c).Size().Y + margin
	style.Color = gray
	line(f.y, vg.Points(10)) // lying, as it is read
	style.XAlign, style.YAlign = draw.XCenter, draw.YBottom
	c.FillText(style, vg.Point{X: c.Center().X, Y: c.Min.Y}, f.x)
	c.Min.Y += style.Height(f.x) + margin/2
	p.Draw(c)
	return nil
}

func (f figure) axes(p *plot.Plot) {
	p.BackgroundColor = color.White
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Color, axis.Width, axis.Tick.Color = gray, thinLine, gray
		axis.Padding = 0
	}
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal = draw.LineStyle{Color: gridColor, Width: thinLine}
	p.Add(grid)
	p.Y.Tick.Marker = f.yTicks
	if _, linear := f.yTicks.(plot.ConstantTicks); !linear {
		p.Y.Scale = plot.LogScale{}
	}
	if f.words != nil {
		p.NominalX(f.words...)
	} else {
		f.numbers(p)
	}
}

// numbers makes the x axis logarithmic, with ticks where something was measured.
func (f figure) numbers(p *plot.Plot) {
	p.X.Scale = plot.LogScale{}
	var ticks plot.ConstantTicks
	for _, v := range f.ticks {
		ticks = append(ticks, plot.Tick{Value: v, Label: thousands(int(v))})
	}
	p.X.Tick.Marker = ticks
}

func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return strconv.Itoa(n/1000) + "," + strconv.Itoa(n%1000 + 1000)[1:]
}

// limit gives the plot room for all samples.
func (f figure) limit(p *plot.Plot) {
	if f.words != nil {
		p.X.Min, p.X.Max = -0.5, float64(len(f.words))-0.5
	} else if len(f.ticks) > 0 {
		p.X.Min, p.X.Max = f.ticks[0]/1.15, f.ticks[len(f.ticks)-1]*1.15
	}
	if ticks, linear := f.yTicks.(plot.ConstantTicks); linear {
		p.Y.Min, p.Y.Max = 0, ticks[len(ticks)-1].Value
		return
	}
	p.Y.Min, p.Y.Max = p.Y.Min/1.2, p.Y.Max*1.2
}

// parts of a plot that show a curve.
type parts struct {
	plotters []plot.Plotter
	legend   []plot.Thumbnailer
}

// curve draws the curve that is the i-th.
func (f figure) curve(i int) (parts, error) {
	place := float64(i) - float64(len(f.curves)-1)/2 // from the middle
	if f.words != nil {
		return f.curves[i].scattered(place)
	}
	return f.curves[i].joined(place)
}

func (c curve) joined(place float64) (parts, error) {
	const slot = 0.012 // bars stand beside each other, not upon

	data := struct {
		plotter.XYs
		plotter.YErrors
	}{make(plotter.XYs, len(c.x)), make(plotter.YErrors, len(c.x))}
	for i, x := range c.x {
		m := median(c.y[i])
		data.XYs[i] = plotter.XY{X: x * (1 + slot*place), Y: m}
		data.YErrors[i].Low, data.YErrors[i].High = m-quantile(c.y[i], 0), quantile(c.y[i], 1)-m
	}
	line, points, err := plotter.NewLinePoints(data.XYs)
	if err != nil {
		return parts{}, err
	}
	line.LineStyle = draw.LineStyle{Color: c.color, Width: lineWidth, Dashes: c.dashes}
	points.GlyphStyle = draw.GlyphStyle{Color: c.color, Radius: vg.Points(2.5), Shape: draw.CircleGlyph{}}
	bars, err := plotter.NewYErrorBars(data)
	if err != nil {
		return parts{}, err
	}
	bars.LineStyle, bars.CapWidth = draw.LineStyle{Color: c.color, Width: vg.Points(0.7)}, vg.Points(3)
	return parts{[]plot.Plotter{bars, line, points}, []plot.Thumbnailer{line, points}}, nil
}

// scattered shows every sample, and the median as a line through them, at the curve's place beside the others.
func (c curve) scattered(place float64) (parts, error) {
	const slot, half = 0.2, 0.07
	var all plotter.XYs
	var drawn parts
	for i, word := range c.x {
		at := word + slot*place
		for _, y := range c.y[i] {
			all = append(all, plotter.XY{X: at, Y: y})
		}
		m := median(c.y[i])
		line, err := plotter.NewLine(plotter.XYs{{X: at - half, Y: m}, {X: at + half, Y: m}})
		if err != nil {
			return parts{}, err
		}
		line.LineStyle = draw.LineStyle{Color: c.color, Width: lineWidth}
		drawn.plotters = append(drawn.plotters, line)
	}
	points, err := plotter.NewScatter(all)
	if err != nil {
		return parts{}, err
	}
	points.GlyphStyle = draw.GlyphStyle{Color: c.color, Radius: vg.Points(2.5), Shape: draw.CircleGlyph{}}
	return parts{append(drawn.plotters, points), []plot.Thumbnailer{points}}, nil
}

// decades are ticks at 1, 2 and 5 of every decade of a logarithmic axis.
type decades struct{ label func(float64) string }

var (
	durations = decades{durationText} // of seconds
	times     = decades{func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) + "\u00d7" }}
	megabytes = decades{func(v float64) string { return strconv.FormatFloat(v/1e6, 'f', -1, 64) + " MB/s" }}
)

// Ticks implements plot.Ticker.
func (d decades) Ticks(low, high float64) (ticks []plot.Tick) {
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		for _, m := range []float64{1, 2, 5} {
			if v := m * math.Pow(10, e); v >= low && v <= high {
				ticks = append(ticks, plot.Tick{Value: v, Label: d.label(v)})
			}
		}
	}
	return ticks
}

// fromZero are ticks of a linear axis up to above the largest value.
func fromZero(largest, step float64) (ticks plot.ConstantTicks) {
	for v := 0.0; v < largest+step; v += step {
		ticks = append(ticks, plot.Tick{Value: v, Label: strconv.Itoa(int(v))})
	}
	return ticks
}
